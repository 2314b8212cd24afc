//! Probes of an orchestrator: 200 or 503, and the reasons a line each. `docs/kubernetes.md` says what they mean.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::daemon::{Manager, blocking};

/// Status and text of a probe.
type Answer = (StatusCode, String);

fn answer(problems: &[String]) -> Answer {
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

/// `GET /startz`: a configuration is in force.
pub(crate) async fn started(State(manager): State<Arc<Manager>>) -> Answer {
    // Not asked of the engine, which is busy until then.
    let started = manager.tally().0 > 0;
    answer(&if started { Vec::new() } else { vec!["no configuration is in force yet".to_owned()] })
}

/// `GET /livez`: control answers, housekeeping comes round, and every worker advances. The engine is not asked, so that one
/// that is busy with a device is no reason to kill weir.
pub(crate) async fn live(State(manager): State<Arc<Manager>>) -> Answer {
    answer(&blocking(move || manager.liveness()).await)
}

/// `GET /readyz`: every port is up, every worker runs the generation in force, and weir is not on its way out.
pub(crate) async fn ready(State(manager): State<Arc<Manager>>) -> Answer {
    let health = blocking(move || manager.health()).await;
    match health.status {
        "ok" => answer(&[]),
        status => answer(&[vec![status.to_owned()], health.problems].concat()),
    }
}
