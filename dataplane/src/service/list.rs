//! The list of service functions: to add one, add its folder and a line here.

use weir_config::Service;

use super::firewall::Firewall;
use super::nat::Nat;
use super::policer::Policer;
use super::{BuildContext, ServiceFunction};

/// Builds the service function `name` from its part of the configuration.
pub fn build(name: &str, service: &Service, context: &BuildContext) -> Box<dyn ServiceFunction> {
    match service {
        Service::Firewall(config) => Box::new(Firewall::new(name, config)),
        Service::Nat(config) => Box::new(Nat::new(name, config, context)),
        Service::Policer(config) => Box::new(Policer::new(name, config, context)),
    }
}
