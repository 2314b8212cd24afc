//! Attached hops: where they stand, and whether they can be reached.

use weir_config::{DEFAULT_VRF, Fail};

use crate::chain::AttachedHop;
use crate::decision::{ChainId, HopId, ScopeId, VrfId};

use super::CompileError;
use super::compile::Compiler;

impl Compiler<'_> {
    /// The number of a hop where it stands.
    pub(super) fn hop(&mut self, name: &str) -> Result<HopId, CompileError> {
        let chain = self.chain_of(name).map(|(chain, _)| chain);
        let vrf = chain.as_ref().and_then(|chain| self.vrf_of(chain));
        let place = format!("{name} {} {}", chain.unwrap_or_default(), vrf.unwrap_or_default());
        self.registry.hops.intern(&place, "attached hops").map(HopId)
    }

    /// The chain that a hop is in, and which of its attached hops it is.
    fn chain_of(&self, hop: &str) -> Option<(String, usize)> {
        self.config.chains.iter().find_map(|(name, chain)| {
            let mut attached = chain.hops.iter().filter(|hop| self.config.hops.contains_key(*hop));
            attached.position(|other| other == hop).map(|at| (name.clone(), at))
        })
    }

    /// The VRF of a chain with attached hops.
    fn vrf_of(&mut self, chain: &str) -> Option<String> {
        match self.config.vrf_of_chain(chain) {
            Some(vrf) => {
                self.registry.chain_vrfs.insert(chain.to_owned(), vrf.clone());
                Some(vrf)
            }
            None => {
                let last = self.registry.chain_vrfs.get(chain);
                last.filter(|vrf| *vrf == DEFAULT_VRF || self.config.vrfs.contains_key(*vrf)).cloned()
            }
        }
    }

    /// Hops that stand in a chain.
    pub(super) fn attached_hops(&mut self) -> Result<Vec<Option<AttachedHop>>, CompileError> {
        let config = self.config;
        let mut hops = Vec::new();
        for (name, hop) in &config.hops {
            let id = self.hop(name)?;
            let Some((chain, at)) = self.chain_of(name) else { continue };
            let (Some(vrf), Some(first)) = (self.vrf_of(&chain), hop.attach.first()) else { continue };
            let second = hop.attach.get(1).unwrap_or(first);
            let mut scope = |name: &str| self.registry.scopes.intern(name, "interfaces").map(ScopeId);
            let arms = [scope(first)?, scope(second)?];
            let port = |end: &String| end.split('.').next().unwrap_or_default().to_owned();
            let up = |end: &String| self.facts.get(&port(end)).is_none_or(|facts| facts.carrier);
            let attached = AttachedHop {
                name: name.clone(),
                up: hop.attach.iter().all(up),
                skipped: hop.fail == Fail::Open,
                chain: ChainId(self.registry.chains.intern(&chain, "chains")?),
                at,
                vrf: VrfId(self.registry.vrfs.intern(&vrf, "VRFs")?),
                arms,
            };
            if hops.len() <= id.index() {
                hops.resize_with(id.index() + 1, || None);
            }
            if let Some(place) = hops.get_mut(id.index()) {
                *place = Some(attached);
            }
        }
        Ok(hops)
    }
}
