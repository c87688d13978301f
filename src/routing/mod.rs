//! Where should a request go? A model's route, as endpoints in the order to try them.
//!
//! Pure: outstanding requests and randomness are arguments. Whether an endpoint can be reached is found out by
//! the attempt; this says which one is next.

pub mod balance;

use std::collections::HashMap;

use crate::base::EndpointId;
use crate::config::{Config, Model};

/// Model names, compiled for lookup.
#[derive(Debug)]
pub struct Table {
    by_name: HashMap<String, usize>,
}

/// A way to serve one request: an endpoint, and the model's name there if it differs from the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'c> {
    /// The endpoint to try.
    pub endpoint: EndpointId,
    /// The provider's name for the model; `None` keeps the client's.
    pub model: Option<&'c str>,
}

/// The endpoints of one request that are still to be tried.
#[derive(Debug)]
pub struct Plan<'c> {
    config: &'c Config,
    model: &'c Model,
    target: usize,
    tried: Vec<EndpointId>,
}

impl Table {
    /// Compiles the models of a configuration.
    pub fn new(config: &Config) -> Table {
        Table { by_name: (0..).zip(&config.models).map(|(at, model)| (model.name.clone(), at)).collect() }
    }

    /// The model that serves `name`: its own entry, else the default route, which also serves requests without a name.
    pub fn find<'c>(&self, config: &'c Config, name: Option<&str>) -> Option<&'c Model> {
        match name.and_then(|name| self.by_name.get(name)) {
            Some(at) => config.models.get(*at),
            None => config.default_model.as_ref(),
        }
    }
}

impl<'c> Plan<'c> {
    /// A plan to serve `model`, nothing tried yet.
    pub fn new(config: &'c Config, model: &'c Model) -> Plan<'c> {
        Plan { config, model, target: 0, tried: Vec::new() }
    }

    /// The next endpoint: of the route's first provider that has an untried one, by two random choices on
    /// `outstanding` requests per endpoint. `None` when all were tried.
    pub fn next(&mut self, outstanding: impl Fn(EndpointId) -> u32, random: u64) -> Option<Candidate<'c>> {
        while let Some(target) = self.model.route.get(self.target) {
            let endpoints = &self.config.providers[target.provider].endpoints;
            let chosen = match endpoints.as_slice() {
                [only] if self.tried.is_empty() => Some(*only),
                all => balance::two_choices(all, |endpoint| self.tried.contains(&endpoint), &outstanding, random),
            };
            if let Some(endpoint) = chosen {
                return Some(Candidate { endpoint, model: target.model.as_deref() });
            }
            self.target += 1;
        }
        None
    }

    /// Leaves `endpoint` out from now on.
    pub fn rule_out(&mut self, endpoint: EndpointId) {
        self.tried.push(endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture;

    #[test]
    fn a_plan_walks_the_route_and_tries_each_endpoint_once() {
        // Provider 0 has endpoints 0 and 1, provider 1 has endpoint 2.
        let config = fixture(&[2, 1], &[("chat", &[(0, Some("big")), (1, None)])]);
        let mut plan = Plan::new(&config, &config.models[0]);
        let load = |endpoint: EndpointId| if endpoint.0 == 0 { 4 } else { 0 };
        let mut seen = Vec::new();
        while let Some(candidate) = plan.next(load, 0) {
            seen.push((candidate.endpoint.0, candidate.model));
            plan.rule_out(candidate.endpoint);
        }
        assert_eq!(seen, [(1, Some("big")), (0, Some("big")), (2, None)]);
    }

    #[test]
    fn a_name_finds_its_model_and_others_the_default() {
        let mut config = fixture(&[1], &[("chat", &[(0, None)])]);
        let table = Table::new(&config);
        assert_eq!(table.find(&config, Some("chat")).unwrap().name, "chat");
        assert!(table.find(&config, Some("other")).is_none());
        assert!(table.find(&config, None).is_none());
        config.default_model = Some(Model { name: "*".into(), ..config.models[0].clone() });
        assert_eq!(table.find(&config, Some("other")).unwrap().name, "*");
        assert_eq!(table.find(&config, None).unwrap().name, "*");
    }
}
