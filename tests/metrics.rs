//! What the gateway counts is what happened.

mod common;

use common::metrics::{ask, scrape, scrape_when, sum};
use common::origin::{DONE, FINISH, content};
use common::{Config, Gateway, JSON, Mock, Origin, chat, metric, metric_is, stream_chat, until_at_rest};

const PATH: &str = "/v1/chat/completions";

#[test]
fn known_traffic_has_exact_counts() {
    let mock = Mock::start(&[]);
    let models = "[[models]]\nname = \"named\"\nroute = [{ provider = \"mock\", model = \"mock:tokens=4,ttft=0ms,gap=1ms\" }]\n\
                  [[models]]\nname = \"*\"\nroute = [{ provider = \"mock\" }]\n";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).models(models).admin());
    let body = chat("named", false);
    for _ in 0..3 {
        assert_eq!(gateway.connect().request("POST", PATH, &JSON, &body).head.status, 200);
    }
    let (_, mut events) = stream_chat(gateway.address(), "mock:tokens=7,ttft=0ms,gap=1ms");
    let answer: usize = events.all().iter().map(|event| event.raw.len()).sum();
    assert_eq!(gateway.connect().request("POST", PATH, &[], &body).head.status, 401);
    assert_eq!(gateway.connect().request("GET", "/nothing", &JSON, b"").head.status, 404);

    metric_is(&gateway, "ringway_requests_total", &[], 6.0);
    let samples = scrape(&gateway);
    let named = [("model", "named"), ("endpoint", "mock/0"), ("dialect", "openai"), ("streamed", "false")];
    let other = [("model", "other"), ("endpoint", "mock/0"), ("dialect", "openai"), ("streamed", "true")];
    let none = [("model", "none"), ("endpoint", "none"), ("dialect", "openai"), ("streamed", "false")];
    let is = |name: &str, route: &[(&str, &str)], more: &[(&str, &str)], value: f64| {
        let labels = [route, more].concat();
        assert_eq!(sum(&samples, name, &labels), value, "{name} {labels:?}");
    };
    for (route, status, state, count) in
        [(named, "2xx", "complete", 3.0), (other, "2xx", "complete", 1.0), (none, "4xx", "refused", 2.0)]
    {
        is("ringway_requests_total", &route, &[], count);
        is("ringway_requests_total", &route, &[("status", status), ("state", state)], count);
        is("ringway_request_duration_seconds_count", &route, &[], count);
        is("ringway_request_duration_seconds_bucket", &route, &[("le", "+Inf")], count);
        let answered = if state == "complete" { count } else { 0.0 };
        is("ringway_added_latency_seconds_count", &route, &[], answered);
    }
    is("ringway_ttft_seconds_count", &[], &[], 1.0);
    is("ringway_ttft_seconds_count", &other, &[], 1.0);
    is("ringway_tokens_total", &named, &[("kind", "output")], 12.0);
    is("ringway_tokens_total", &other, &[("kind", "output")], 7.0);
    is("ringway_request_body_bytes_total", &named, &[], (3 * body.len()) as f64);
    is("ringway_answer_body_bytes_total", &other, &[], answer as f64);
    is("ringway_errors_total", &[], &[("origin", "client"), ("phase", "admission")], 2.0);
    is("ringway_errors_total", &[], &[], 2.0);
    is("ringway_cancelled_total", &[], &[], 0.0);
    is("ringway_retries_total", &[], &[], 0.0);
    is("ringway_upstream_attempts_total", &[], &[("endpoint", "mock/0")], 4.0);
    let (opened, reused) = (
        metric(&gateway, "ringway_upstream_connections_opened_total", &[]),
        metric(&gateway, "ringway_upstream_connections_reused_total", &[]),
    );
    assert_eq!((opened + reused, opened >= 1.0), (4.0, true));
    is("ringway_client_connections_accepted_total", &[], &[("listener", &gateway.address().to_string())], 6.0);
    is("ringway_metric_routes", &[], &[], 3.0);
    until_at_rest(&gateway);
    // Its clients have gone.
    drop(events);
    metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
}

#[test]
fn events_of_a_stream_are_measured_one_from_the_other() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin());
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("0"));
    let head = client.head();
    let mut events = client.events(&head);
    events.next_event();
    metric_is(&gateway, "ringway_requests_in_flight", &[], 1.0);
    metric_is(&gateway, "ringway_upstream_requests_outstanding", &[("endpoint", "mock/0")], 1.0);
    metric_is(&gateway, "ringway_client_connections_open", &[], 1.0);
    for at in 1..=5 {
        peer.chunk(content(&at.to_string()));
        events.next_event().expect("an event");
        metric_is(&gateway, "ringway_event_gap_seconds_count", &[("streamed", "true")], f64::from(at));
    }
    // A comment is no content.
    peer.chunk(": still here\n\n").chunk(content("6"));
    events.next_event();
    peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    events.all();
    metric_is(&gateway, "ringway_requests_total", &[("state", "complete")], 1.0);
    until_at_rest(&gateway);
}

#[test]
fn what_is_asked_of_the_admin_listener_it_answers() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    assert_eq!(ask(&gateway, "/healthz"), (200, "ok\n".into()));
    assert_eq!(ask(&gateway, "/readyz"), (200, "ok\n".into()));
    let (status, text) = ask(&gateway, "/");
    assert_eq!(status, 404);
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert!(text.contains(path), "{text}");
        let mut client = common::Client::connect(gateway.admin());
        let response = client.request("HEAD", path, &[], b"");
        assert_eq!((response.head.status, response.body.len()), (200, 0), "{path}");
        let response = client.request("POST", path, &[], b"");
        assert_eq!((response.head.status, response.head.get("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    scrape_when(&gateway, "workers have used CPU", |samples| {
        sum(samples, "ringway_worker_cpu_seconds_total", &[("worker", "0")]) > 0.0
    });
    let status: serde_json::Value = serde_json::from_str(&ask(&gateway, "/status").1).expect("JSON");
    assert_eq!((&status["stage"], &status["draining"]), (&"ready".into(), &false.into()), "{status:#}");
    assert_eq!(status["listeners"][0]["address"], gateway.address().to_string(), "{status:#}");
    assert_eq!(status["endpoints"][0]["endpoint"], "mock/0", "{status:#}");
    assert_eq!(status["workers"][0]["core"], 0, "{status:#}");
}
