//! Names to numbers, for the life of the process: a number means the same thing in every generation, so that what was
//! learned (neighbours, bridge entries, sessions) survives a change of the configuration.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::CompileError;
use crate::l3::{Fib, FibFull, Rib};

/// Names of one kind.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<String, u16>,
    names: Vec<String>,
}

impl Names {
    /// The number of `name`, given now if it has none.
    pub(crate) fn intern(&mut self, name: &str, kind: &'static str) -> Result<u16, CompileError> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = u16::try_from(self.names.len()).map_err(|_| CompileError::TooMany(kind))?;
        if number == u16::MAX {
            return Err(CompileError::TooMany(kind));
        }
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        Ok(number)
    }

    /// The number of `name`, if it has one.
    pub(crate) fn get(&self, name: &str) -> Option<u16> {
        self.numbers.get(name).copied()
    }

    /// The name of `number`.
    pub(crate) fn name(&self, number: u16) -> Option<&str> {
        self.names.get(usize::from(number)).map(String::as_str)
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// All names, and the routes of the generation before.
#[derive(Debug, Default)]
pub struct Registry {
    /// By VRF.
    pub(crate) routes: HashMap<String, (Weak<Rib>, Weak<Fib>)>,
    pub(crate) ports: Names,
    pub(crate) scopes: Names,
    pub(crate) vrfs: Names,
    pub(crate) bridges: Names,
    pub(crate) chains: Names,
    /// `<hop> <chain> <VRF>`: what is known of packets behind a hop means nothing where it stands elsewhere.
    pub(crate) hops: Names,
    /// The VRF that packets were last sent into a chain from: its sessions go on when no rule sends any more.
    pub(crate) chain_vrfs: HashMap<String, String>,
    /// `<tunnel>@<remote>`.
    pub(crate) endpoints: Names,
}

impl Registry {
    /// The FIB of a VRF: that of the generation before, if the routes are the same.
    pub(crate) fn fib(&mut self, vrf: &str, rib: &Arc<Rib>) -> Result<Arc<Fib>, FibFull> {
        let last = self.routes.get(vrf).and_then(|(rib, fib)| Some((rib.upgrade()?, fib.upgrade()?)));
        let fib = match last.filter(|(last, _)| last == rib) {
            Some((_, fib)) => fib,
            None => Arc::new(rib.fib()?),
        };
        // Those of this generation: the one before goes when its snapshot is freed.
        self.routes.insert(vrf.to_owned(), (Arc::downgrade(rib), Arc::downgrade(&fib)));
        Ok(fib)
    }

    /// Number of a port, given now if it has none.
    ///
    /// # Errors
    /// All numbers are used.
    pub fn port(&mut self, name: &str) -> Result<crate::decision::PortId, CompileError> {
        self.ports.intern(name, "ports").map(crate::decision::PortId)
    }

    /// Number of a scope by its interface name, if any generation had it.
    pub fn scope(&self, name: &str) -> Option<crate::decision::ScopeId> {
        self.scopes.get(name).map(crate::decision::ScopeId)
    }

    /// Name of a scope.
    pub fn scope_name(&self, id: crate::decision::ScopeId) -> Option<&str> {
        self.scopes.name(id.0)
    }

    /// Name of a VRF.
    pub fn vrf_name(&self, id: crate::decision::VrfId) -> Option<&str> {
        self.vrfs.name(id.0)
    }

    /// Name of a bridge domain.
    pub fn bridge_name(&self, id: crate::decision::BridgeId) -> Option<&str> {
        self.bridges.name(id.0)
    }

    /// Name of a chain.
    pub fn chain_name(&self, id: crate::decision::ChainId) -> Option<&str> {
        self.chains.name(id.0)
    }
}
