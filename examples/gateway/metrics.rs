//! The status as Prometheus text.

use std::fmt::Write as _;

use serde_json::Value;

/// The numbers of [`status`](crate::status::status), for a scraper.
pub(crate) fn text(status: &Value) -> String {
    let mut page = Page::default();
    let totals = &status["totals"];
    page.head("gateway_calls_total", "counter", "Calls by what they came to.");
    for outcome in OUTCOMES {
        page.line("gateway_calls_total", &[("outcome", outcome)], &totals[outcome]);
    }
    page.head("gateway_calls_under_way", "gauge", "Calls that are not answered to their end.");
    page.line("gateway_calls_under_way", &[], &totals["under_way"]);
    page.head("gateway_waiting", "gauge", "Calls that wait for a limit.");
    page.line("gateway_waiting", &[], &totals["waiting"]);
    page.head("gateway_wait_seconds", "summary", "How long calls waited before they were sent.");
    page.line("gateway_wait_seconds_sum", &[], &totals["waited_seconds"]);
    page.line("gateway_wait_seconds_count", &[], &totals["sent"]);
    page.head("gateway_tokens_total", "counter", "Tokens that calls used.");
    page.line("gateway_tokens_total", &[], &totals["tokens"]);
    page.head("gateway_upstream_429_total", "counter", "Calls that a provider refused.");
    page.line("gateway_upstream_429_total", &[], &status["upstream_429"]);
    let connections = &status["connections"];
    page.head("gateway_connections", "gauge", "Connections of tenants.");
    page.line("gateway_connections", &[], &connections["open"]);
    page.head(
        "gateway_connections_refused_total",
        "counter",
        "Connections that were one too many.",
    );
    page.line("gateway_connections_refused_total", &[], &connections["turned_away"]);
    page.head("gateway_answers_kept_bytes", "gauge", "Bytes of answers in memory.");
    page.line("gateway_answers_kept_bytes", &[], &status["answers_kept_bytes"]);
    page.head(
        "gateway_tasks",
        "gauge",
        "Tasks: some of its own, and those of connections and calls.",
    );
    page.line("gateway_tasks", &[], &status["instance"]["tasks"]);
    page.head("gateway_ready", "gauge", "1 if this instance takes calls.");
    let is_ready = u8::from(status["instance"]["health"] == "ready");
    page.line("gateway_ready", &[], &is_ready.into());

    for (metric, member, help) in [
        ("gateway_limit", "limit", "A provider's limit in its window."),
        ("gateway_limit_remaining", "remaining", "What is left of it."),
        ("gateway_limit_window_seconds", "window_seconds", "Its window."),
    ] {
        page.head(metric, "gauge", help);
        for limit in rows(&status["limits"]) {
            let labels = [
                ("account", text_of(limit, "account")),
                ("model", text_of(limit, "model")),
                ("limit", text_of(limit, "name")),
            ];
            page.line(metric, &labels, &limit[member]);
        }
    }
    page.head("gateway_account_waiting", "gauge", "Calls that wait for an account.");
    for account in rows(&status["accounts"]) {
        let labels = [("account", text_of(account, "name")), ("model", text_of(account, "model"))];
        page.line("gateway_account_waiting", &labels, &account["waiting"]);
    }
    page.head("gateway_account_stopped", "gauge", "1 while a provider lets nothing in.");
    for account in rows(&status["accounts"]) {
        let labels = [("account", text_of(account, "name")), ("model", text_of(account, "model"))];
        let is_stopped = u8::from(!account["stop"].is_null());
        page.line("gateway_account_stopped", &labels, &is_stopped.into());
    }
    page.head("gateway_tenant_calls_total", "counter", "Calls of a tenant.");
    for tenant in rows(&status["tenants"]) {
        for outcome in OUTCOMES {
            let labels = [("tenant", text_of(tenant, "name")), ("outcome", outcome)];
            page.line("gateway_tenant_calls_total", &labels, &tenant[outcome]);
        }
    }
    page.head("gateway_tenant_tokens_total", "counter", "Tokens of a tenant.");
    for tenant in rows(&status["tenants"]) {
        let labels = [("tenant", text_of(tenant, "name"))];
        page.line("gateway_tenant_tokens_total", &labels, &tenant["tokens"]);
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
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

const OUTCOMES: [&str; 5] = ["admitted", "cached", "deferred", "refused", "failed"];
