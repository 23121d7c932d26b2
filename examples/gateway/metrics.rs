//! The status as Prometheus text: each number of it.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// The numbers of [`status`](crate::status::status), for a scraper.
pub(crate) fn text(status: &Value) -> String {
    let mut page = Page::default();
    instance(&mut page, status);
    calls(&mut page, status);
    store(&mut page, &status["store"]);
    accounts(&mut page, status);
    tenants(&mut page, rows(&status["tenants"]));
    deferred(&mut page, status);
    page.0
}

fn instance(page: &mut Page, status: &Value) {
    let own = &status["instance"];
    let labels = ["name", "version", "state"].map(|member| (member, text_of(own, member)));
    page.head("gateway_info", "gauge", "Which instance this is.");
    page.line("gateway_info", &labels, &1.into());
    let is_ready = u8::from(own["health"] == "ready").into();
    page.one("gateway_ready", "gauge", "1 if this instance takes calls.", &is_ready);
    let help = "When it started, by the Unix clock.";
    page.one("gateway_start_time_seconds", "gauge", help, &seconds(&own["started"]));
    page.one("gateway_uptime_seconds", "gauge", "How long it runs.", &own["uptime_seconds"]);
    let help = "Tasks: some of its own, and those of connections and calls.";
    page.one("gateway_tasks", "gauge", help, &own["tasks"]);
    let connections = &status["connections"];
    page.one("gateway_connections", "gauge", "Connections of tenants.", &connections["open"]);
    let help = "Connections that were one too many.";
    page.one("gateway_connections_refused_total", "counter", help, &connections["turned_away"]);
    page.one("gateway_answers_kept", "gauge", "Answers in memory.", &status["answers_kept"]);
    let help = "Bytes of answers in memory.";
    page.one("gateway_answers_kept_bytes", "gauge", help, &status["answers_kept_bytes"]);
}

fn calls(page: &mut Page, status: &Value) {
    let totals = &status["totals"];
    page.head("gateway_calls_total", "counter", "Calls by what they came to.");
    for outcome in OUTCOMES {
        page.line("gateway_calls_total", &[("outcome", outcome)], &totals[outcome]);
    }
    let help = "Calls that are not answered to their end.";
    page.one("gateway_calls_under_way", "gauge", help, &totals["under_way"]);
    page.one("gateway_waiting", "gauge", "Calls that wait for a limit.", &totals["waiting"]);
    let name = "gateway_wait_seconds";
    page.head(name, "histogram", "How long calls waited before they were sent.");
    for up_to in rows(&totals["waits_up_to"]) {
        let most = up_to["seconds"].to_string();
        page.line(&format!("{name}_bucket"), &[("le", &most)], &up_to["calls"]);
    }
    page.line(&format!("{name}_bucket"), &[("le", "+Inf")], &totals["sent"]);
    page.line(&format!("{name}_sum"), &[], &totals["waited_seconds"]);
    page.line(&format!("{name}_count"), &[], &totals["sent"]);
    let help = "The longest of these waits since the start.";
    page.one("gateway_longest_wait_seconds", "gauge", help, &totals["longest_wait_seconds"]);
    page.one("gateway_tokens_total", "counter", "Tokens that calls used.", &totals["tokens"]);
    let help = "Calls that a provider refused.";
    page.one("gateway_upstream_429_total", "counter", help, &status["upstream_429"]);
}

fn store(page: &mut Page, store: &Value) {
    let help = "1 while the breaker before the server is open: this instance decides by its part.";
    let is_open = u8::from(store["state"] == "away").into();
    page.one("gateway_store_open", "gauge", help, &is_open);
    let help = "When that was noticed, by the Unix clock.";
    page.one("gateway_store_open_since_seconds", "gauge", help, &seconds(&store["away_since"]));
    for (name, kind, member, help) in [
        (
            "gateway_store_ledgers",
            "gauge",
            "ledgers",
            "Ledgers on the server: accounts, and plans.",
        ),
        ("gateway_store_ledgers_open", "gauge", "ledgers_away", "Those that are decided on here."),
        (
            "gateway_store_errors_total",
            "counter",
            "errors",
            "Decisions, and looks, that the server did not answer and this instance did.",
        ),
        (
            "gateway_store_timeouts_total",
            "counter",
            "timed_out",
            "Calls to it without an answer in time.",
        ),
        ("gateway_store_openings_total", "counter", "openings", "How often a breaker opened."),
    ] {
        page.one(name, kind, help, &store[member]);
    }
}

fn accounts(page: &mut Page, status: &Value) {
    let limits = rows(&status["limits"]);
    let labels = |limit| {
        ["account", "model", "limit"].map(|label| (label, text_of(limit, member_of(label))))
    };
    for (metric, member, help) in [
        ("gateway_limit", "limit", "A provider's limit in its window."),
        ("gateway_limit_remaining", "remaining", "What is left of it."),
        ("gateway_limit_window_seconds", "window_seconds", "Its window."),
    ] {
        page.head(metric, "gauge", help);
        for limit in limits {
            page.line(metric, &labels(limit), &limit[member]);
        }
    }
    let name = "gateway_limit_told_seconds";
    page.head(name, "gauge", "When the provider told it, by the Unix clock.");
    for limit in limits {
        page.line(name, &labels(limit), &seconds(&limit["told"]));
    }
    let name = "gateway_limit_info";
    page.head(name, "gauge", "Who says so: it is told, inferred or set.");
    for limit in limits {
        let [account, model, own] = labels(limit);
        page.line(name, &[account, model, own, ("source", text_of(limit, "source"))], &1.into());
    }
    let accounts = rows(&status["accounts"]);
    let labels =
        |account| [("account", text_of(account, "name")), ("model", text_of(account, "model"))];
    page.head("gateway_account_waiting", "gauge", "Calls that wait for an account.");
    for account in accounts {
        page.line("gateway_account_waiting", &labels(account), &account["waiting"]);
    }
    let help = "1 while what other instances are told of an account is not read.";
    page.head("gateway_account_untold", "gauge", help);
    for account in accounts {
        let is_untold = u8::from(!account["board_away_since"].is_null());
        page.line("gateway_account_untold", &labels(account), &is_untold.into());
    }
    page.head("gateway_account_stopped", "gauge", "1 while a provider lets nothing in.");
    for account in accounts {
        let is_stopped = u8::from(!account["stop"].is_null());
        page.line("gateway_account_stopped", &labels(account), &is_stopped.into());
    }
    let name = "gateway_account_stop_seconds";
    page.head(name, "gauge", "For how long it will, if that is known.");
    for account in accounts {
        page.line(name, &labels(account), &account["stop"]["seconds_left"]);
    }
}

fn tenants(page: &mut Page, tenants: &[Value]) {
    page.head("gateway_tenant_calls_total", "counter", "Calls of a tenant.");
    for tenant in tenants {
        for outcome in OUTCOMES {
            let labels = [("tenant", text_of(tenant, "name")), ("outcome", outcome)];
            page.line("gateway_tenant_calls_total", &labels, &tenant[outcome]);
        }
    }
    for (metric, kind, member, help) in [
        ("gateway_tenant_tokens_total", "counter", "tokens", "Tokens of a tenant."),
        ("gateway_tenant_waiting", "gauge", "waiting", "Calls of it that wait for a limit."),
        (
            "gateway_tenant_calls_under_way",
            "gauge",
            "under_way",
            "Those that are not answered to their end.",
        ),
        (
            "gateway_tenant_sent_total",
            "counter",
            "sent",
            "Those that were sent on, after their wait.",
        ),
        (
            "gateway_tenant_waited_seconds_total",
            "counter",
            "waited_seconds",
            "How long these waited together.",
        ),
        (
            "gateway_tenant_longest_wait_seconds",
            "gauge",
            "longest_wait_seconds",
            "The longest of these waits since the start.",
        ),
    ] {
        page.head(metric, kind, help);
        for tenant in tenants {
            page.line(metric, &[("tenant", text_of(tenant, "name"))], &tenant[member]);
        }
    }
    for (metric, member, help) in [
        ("gateway_tenant_limit", "limit", "A limit of a tenant's plan."),
        ("gateway_tenant_limit_remaining", "remaining", "What is left of it."),
        ("gateway_tenant_limit_reset_seconds", "reset_seconds", "In which time all of it is back."),
    ] {
        page.head(metric, "gauge", help);
        for tenant in tenants {
            for limit in rows(&tenant["limits"]) {
                let labels =
                    [("tenant", text_of(tenant, "name")), ("limit", text_of(limit, "name"))];
                page.line(metric, &labels, &limit[member]);
            }
        }
    }
}

fn deferred(page: &mut Page, status: &Value) {
    let kept = &status["deferred"];
    page.head("gateway_deferred", "gauge", "Deferred calls of all instances, by their state.");
    for state in ["waiting", "running", "done", "failed", "expired", "canceled"] {
        page.line("gateway_deferred", &[("state", state)], &kept[state]);
    }
    let help = "How long the oldest waits.";
    page.one("gateway_deferred_oldest_seconds", "gauge", help, &kept["oldest_wait_seconds"]);
    page.one("gateway_deferred_bytes", "gauge", "Bytes that they take.", &kept["bytes"]);
    page.head(
        "gateway_deferred_runs_total",
        "counter",
        "Turns of deferred calls, by what came of it.",
    );
    for run in RUNS {
        page.line(
            "gateway_deferred_runs_total",
            &[("outcome", run)],
            &status["totals"]["runs"][run],
        );
    }
    let name = "gateway_tenant_deferred_runs_total";
    page.head(name, "counter", "Those of a tenant.");
    for tenant in rows(&status["tenants"]) {
        for run in RUNS {
            let labels = [("tenant", text_of(tenant, "name")), ("outcome", run)];
            page.line(name, &labels, &tenant["runs"][run]);
        }
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A metric without labels.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: &Value) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    /// Nothing, where the value is not known.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: &Value) {
        if value.is_null() {
            return;
        }
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if place == 0 { '{' } else { ',' });
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of<'v>(row: &'v Value, member: &str) -> &'v str {
    row[member].as_str().unwrap_or_default()
}

/// What a limit's label is called in the status.
fn member_of(label: &'static str) -> &'static str {
    if label == "limit" { "name" } else { label }
}

/// Of milliseconds.
fn seconds(millis: &Value) -> Value {
    millis.as_u64().map_or(Value::Null, |millis| json!(millis as f64 / 1e3))
}

const OUTCOMES: [&str; 5] = ["admitted", "cached", "deferred", "refused", "failed"];
const RUNS: [&str; 3] = ["answered", "refused", "failed"];
