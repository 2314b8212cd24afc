//! What only reads: each handler asks the engine on a thread that may block, and wraps the answer in an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_dataplane::worker::status::PortStatus;

use super::DEFAULT_LIMIT;
use super::error::ApiError;
use crate::daemon::{ConfigView, Conservation, Health, Manager, blocking};
use crate::devices;
use crate::engine::Engine;
use crate::system::System;

/// Asks the engine, away from the reactor.
async fn ask<T: Send + 'static>(
    manager: &Arc<Manager>,
    question: impl FnOnce(&dyn Engine) -> T + Send + 'static,
) -> T {
    let engine = manager.engine.clone();
    blocking(move || question(engine.as_ref())).await
}

/// Wraps a list: `{"<name>": […]}`, so that more can be said beside it later.
async fn list<T: Serialize + Send + 'static>(
    manager: Arc<Manager>,
    name: &'static str,
    question: impl FnOnce(&dyn Engine) -> Vec<T> + Send + 'static,
) -> Json<BTreeMap<&'static str, Vec<T>>> {
    Json(BTreeMap::from([(name, ask(&manager, question).await)]))
}

macro_rules! lists {
    ($($name:ident $text:literal)*) => { $(
        pub(crate) async fn $name(State(manager): State<Arc<Manager>>) -> Json<impl Serialize> {
            list(manager, $text, |engine| engine.$name()).await
        }
    )* };
}

lists! {
    workers "workers"
    routes "routes"
    neighbours "neighbours"
    tunnels "tunnels"
    macs "macs"
    chains "chains"
}

pub(crate) async fn ports(State(manager): State<Arc<Manager>>) -> Json<Value> {
    let described = |port: PortStatus| {
        let facts = devices::facts(&System::default(), &port.device, &port.xdp);
        let (mut port, facts) = (json!(port), json!(facts));
        if let (Some(port), Value::Object(facts)) = (port.as_object_mut(), facts) {
            port.extend(facts);
        }
        port
    };
    let ports =
        ask(&manager, move |engine| engine.ports().into_iter().map(described).collect::<Vec<_>>()).await;
    Json(json!({ "ports": ports }))
}

pub(crate) async fn pipeline(State(manager): State<Arc<Manager>>) -> Json<Value> {
    let (pipeline, rules) = ask(&manager, |engine| (engine.pipeline(), engine.rules())).await;
    Json(json!({ "pipeline": pipeline, "rules": rules }))
}

pub(crate) async fn tables(State(manager): State<Arc<Manager>>) -> Json<Value> {
    let (tables, process) = ask(&manager, |engine| (engine.tables(), engine.process_memory())).await;
    Json(json!({ "tables": tables, "process": process }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    limit: Option<usize>,
}

fn limit(query: Result<Query<Limit>, QueryRejection>) -> Result<usize, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::new(400, "bad_query", error.body_text()))?;
    Ok(query.limit.unwrap_or(DEFAULT_LIMIT))
}

pub(crate) async fn flows(
    State(manager): State<Arc<Manager>>,
    query: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let limit = limit(query)?;
    let flows = ask(&manager, move |engine| engine.flows(limit)).await;
    Ok(Json(json!({ "limit": limit, "flows": flows })))
}

pub(crate) async fn sessions(
    State(manager): State<Arc<Manager>>,
    query: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let limit = limit(query)?;
    let sessions = ask(&manager, move |engine| engine.sessions(limit)).await;
    Ok(Json(json!({ "limit": limit, "sessions": sessions })))
}

pub(crate) async fn nat(
    State(manager): State<Arc<Manager>>,
    query: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let limit = limit(query)?;
    let nat = ask(&manager, move |engine| engine.nat(limit)).await;
    Ok(Json(json!({ "limit": limit, "bindings": nat.bindings, "addresses": nat.addresses })))
}

pub(crate) async fn counters(State(manager): State<Arc<Manager>>) -> Json<Value> {
    let counters = ask(&manager, |engine| engine.counters()).await;
    Json(json!({ "counters": counters, "conservation": Conservation::of(&counters) }))
}

pub(crate) async fn config(State(manager): State<Arc<Manager>>) -> Json<ConfigView> {
    Json(blocking(move || manager.show()).await)
}

pub(crate) async fn health(State(manager): State<Arc<Manager>>) -> Json<Health> {
    Json(blocking(move || manager.health()).await)
}

pub(crate) async fn version(State(manager): State<Arc<Manager>>) -> Json<Value> {
    let generation = ask(&manager, |engine| engine.generation()).await;
    Json(json!({
        "name": "weir",
        "version": env!("CARGO_PKG_VERSION"),
        "api": "v1",
        "generation": generation,
        "pid": std::process::id(),
    }))
}
