//! What must hold between the parts of a configuration whose shapes are right.

mod hops;
mod interfaces;
mod loops;
mod nat;
mod neighbours;
mod overlay;
mod routes;
mod rules;
mod services;
mod view;

use std::fmt::Display;

use crate::model::Config;
use crate::sink::Sink;

/// A path of keys and indices, from anything that can be shown.
macro_rules! at {
    ($($step:expr),* $(,)?) => { $crate::validate::steps(&[$(&$step),*]) };
}
pub(crate) use at;

fn steps(steps: &[&dyn Display]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

/// Reports everything that is wrong between the parts of the configuration.
pub(crate) fn validate(config: &Config, sink: &mut Sink<'_>) {
    let view = view::View::new(config, sink);
    interfaces::validate(config, &view, sink);
    interfaces::addresses(&view, sink);
    interfaces::cross_connects(config, &view, sink);
    overlay::validate(config, &view, sink);
    loops::validate(config, &view, sink);
    neighbours::validate(config, &view, sink);
    routes::validate(config, &view, sink);
    nat::validate(config, &view, sink);
    hops::validate(config, &view, sink);
    services::validate(config, sink);
}
