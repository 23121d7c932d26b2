use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tower_quota::testing::strict_upstream::Fault;

use crate::{
    servers::{Data, Standalone},
    support::{
        Gateway, PATIENCE, SECRETS, configuration, on_a_server, on_a_socket, ports_of_its_own,
        provider, until,
    },
};

/// A Chromium without a screen, by the WebDriver protocol. Dropped, it ends.
struct Browser {
    driver: Child,
    session: String,
    client: Client,
}

impl Browser {
    /// Chromium gives up when it does not come up in time, by its own clock: on a machine that stalls it is
    /// started again.
    async fn start(width: u32) -> Self {
        for _ in 0..4 {
            if let Ok(browser) = Self::try_start(width).await {
                return browser;
            }
        }
        Self::try_start(width).await.unwrap_or_else(|told| panic!("no session: {told}"))
    }

    async fn try_start(width: u32) -> Result<Self, Value> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is missing: run tests/install-servers");
        let output = BufReader::new(driver.stdout.take().expect("it is piped"));
        let mut lines = output.lines().map(|line| line.expect("text"));
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("it says where it listens");
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let mut browser =
            Self { driver, session: format!("http://127.0.0.1:{port}/session"), client };
        let window = format!("--window-size={width},900");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &window,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.call(Method::POST, "", wanted).await;
        let Some(id) = session["sessionId"].as_str() else { return Err(session) };
        browser.session += &format!("/{id}");
        Ok(browser)
    }

    async fn open(&self, gateway: &Gateway) {
        let url = format!("http://{}/", gateway.page);
        self.call(Method::POST, "/url", json!({ "url": url })).await;
    }

    /// Makes it a phone, or something else that a browser can be.
    async fn emulate(&self, command: &str, parameters: Value) {
        let body = json!({ "cmd": format!("Emulation.{command}"), "params": parameters });
        self.call(Method::POST, "/goog/cdp/execute", body).await;
    }

    /// What a script returns in the page.
    async fn run(&self, script: &str) -> Value {
        let script = json!({ "script": format!("return {script}"), "args": [] });
        self.call(Method::POST, "/execute/sync", script).await
    }

    async fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("document.querySelector('{selector}')?.textContent")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Ends the session, and with it the browser. Without a runtime: one may be on its way out.
    fn quit(&self) -> io::Result<usize> {
        let address = self.session.trim_start_matches("http://");
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let mut driver = TcpStream::connect(host)?;
        driver.set_read_timeout(Some(PATIENCE))?;
        write!(driver, "DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        // It answers when the browser is gone.
        driver.read(&mut [0])
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.session)).json(&body);
        let answer = request.send().await.expect("the browser answers");
        let mut answer: Value = answer.json().await.expect("JSON");
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's own end leaves the browser behind, at times.
        drop(self.quit());
        let ended = Command::new("kill").args(["-TERM", &self.driver.id().to_string()]).status();
        drop(ended);
        drop(self.driver.wait());
    }
}

#[tokio::test]
async fn the_page_follows_and_outlives_a_restart() {
    let upstream = provider().build();
    let text = ports_of_its_own(&configuration(on_a_socket(&upstream).await, ""));
    let mut gateway = Gateway::start(&text).await;
    let browser = Browser::start(1_300).await;
    browser.open(&gateway).await;
    let admitted = ".tile:first-child .big";
    for number in 1..=2 {
        assert_eq!(gateway.chat(SECRETS[2], "gpt", "Hello").await.status(), 200);
        let number = number.to_string();
        until(|| async { browser.text(admitted).await == number }).await;
    }
    assert_eq!(browser.text("#health span").await, "ready");
    until(|| async { browser.text("#tenants tr th").await.starts_with("alice") }).await;
    until(|| async { browser.text("#news").await.contains("requests: 1000 per minute") }).await;
    let limit = browser.run("document.querySelector('[role=meter]').ariaLabel").await;
    assert_eq!(limit, "Used of one gpt requests");

    gateway.terminate();
    gateway.ended().await;
    until(|| async { browser.text("#health span").await == "not reached, trying again" }).await;
    gateway.start_again(&text).await;
    until(|| async { browser.text("#health span").await == "ready" }).await;
    until(|| async { browser.text(admitted).await == "0" }).await;

    // Nothing came from anywhere else, and nothing went wrong but what was not reached.
    let own = browser
        .run("performance.getEntriesByType('resource').every(one => one.name.startsWith(location.origin) || one.name.startsWith('data:'))")
        .await;
    assert_eq!(own, true);
    let log = browser.call(Method::POST, "/se/log", json!({ "type": "browser" })).await;
    let said = log.as_array().expect("a list").iter();
    let wrong: Vec<_> = said.filter(|said| said["source"] != "network").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn a_hundred_limits_are_readable_and_filtered_on_a_phone() {
    let mut text = configuration(([127, 0, 0, 1], 9).into(), "");
    for number in 0..50 {
        text += &format!(
            "[[account]]\nname = \"account-{number}\"\nprovider = \"open\"\nkey_env = \"ACCOUNT_ONE\"\n\
             limits = {{ requests = \"60 per minute\", tokens = \"{number}000 per minute\" }}\n"
        );
    }
    let gateway = Gateway::start(&text).await;
    let browser = Browser::start(500).await;
    browser.open(&gateway).await;
    let shown = "document.querySelectorAll('#limit-list li').length";
    until(|| async { browser.run(shown).await == 100 }).await;
    assert_eq!(
        browser.run("document.querySelector('#limit-list').classList.contains('dense')").await,
        true
    );
    // Nothing is wider than the window, and no line is lost in another.
    assert_eq!(browser.run("document.documentElement.scrollWidth <= innerWidth").await, true);
    let apart = "[...document.querySelectorAll('#limit-list li')].every((one, place, all) => !place || one.offsetTop >= all[place - 1].offsetTop + all[place - 1].offsetHeight)";
    assert_eq!(browser.run(apart).await, true);

    // With the keyboard alone: over the skip link and the pause to the filter.
    let press = |key: &'static str| {
        let keys =
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let body = json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] });
        browser.call(Method::POST, "/actions", body)
    };
    let focused = "document.activeElement.id || document.activeElement.className";
    for expected in ["skip", "pause", "filter"] {
        press("\u{e004}").await;
        assert_eq!(browser.run(focused).await, expected);
    }
    for key in ["4", "9", "/"] {
        press(key).await;
    }
    until(|| async { browser.run(shown).await == 2 }).await;
}

/// The texts that are paler before what is behind them than 4.5 to 1. The browser mixes the colors: it paints
/// them over each other, and then the text.
const PALE: &str = r"(() => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 1;
    const ink = canvas.getContext('2d', { willReadFrequently: true });
    const light = colors => {
        for (const color of colors) { ink.fillStyle = color; ink.fillRect(0, 0, 1, 1); }
        const linear = [...ink.getImageData(0, 0, 1, 1).data].slice(0, 3).map(part =>
            part / 255 <= .04045 ? part / 255 / 12.92 : ((part / 255 + .055) / 1.055) ** 2.4);
        return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2];
    };
    const seen = [...document.body.querySelectorAll('*')].filter(element => element.checkVisibility()
        && [...element.childNodes].some(child => child.nodeType === 3 && child.data.trim()));
    const pale = seen.flatMap(element => {
        const behind = [];
        for (let own = element; own; own = own.parentElement) behind.unshift(getComputedStyle(own).backgroundColor);
        const [one, other] = [light(behind), light([...behind, getComputedStyle(element).color])];
        const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
        return contrast < 4.5 ? [element.className + ' ' + element.textContent + ' ' + contrast.toFixed(2)] : [];
    });
    return seen.length > 50 ? pale : ['there is next to nothing on the page'];
})()";

#[tokio::test]
async fn an_outage_is_on_the_page_which_is_legible_in_the_light_in_the_dark_and_on_a_phone() {
    let (server, upstream) = (Standalone::start(), provider().build());
    // It is noticed soon that it is away, and yet no moment is taken for that in which the machine stalls.
    let state = on_a_server(1).replace("60s", "3s");
    let text = configuration(on_a_socket(&upstream).await, &state);
    let gateway = Gateway::start_with(&text, &[("REDIS_URL", &server.url())]).await;
    let browser = Browser::start(1_300).await;
    browser.open(&gateway).await;
    // The plan of bob is used up by two, and one is stopped at its account.
    for _ in 0..3 {
        drop(gateway.chat(SECRETS[3], "gpt", "Hello").await);
    }
    until(|| async { browser.text("#tenants").await.contains("0 of 2") }).await;
    // When it is back is there to read, and not only for who points at it.
    assert!(browser.text("#tenants .quota small").await.starts_with("all back in "));
    let visible = "document.querySelector('#away').checkVisibility()";
    until(|| async { browser.run(visible).await == false }).await;
    upstream.inject(Fault::OutOfMoney);
    drop(gateway.chat(SECRETS[2], "gpt", "Hello").await);
    until(|| async { !browser.run("document.querySelector('#accounts .stop')").await.is_null() })
        .await;

    server.kill();
    until(|| async { browser.text("#away-since").await.contains("has not answered since ") }).await;
    assert_eq!(browser.run("document.querySelector('#away-since').role").await, "alert");
    assert_eq!(browser.run("document.querySelector('#away').checkVisibility()").await, true);
    until(|| async { browser.text("#news").await.contains("decides by its part") }).await;
    // Nor does it hear of what the other instances are told.
    until(|| async { browser.text("#untold-since").await.contains("is not shared since ") }).await;
    assert_eq!(browser.run("document.querySelector('#untold').checkVisibility()").await, true);
    assert!(browser.text("#accounts").await.contains("not told by other instances since "));
    assert!(
        gateway
            .at_page("/metrics")
            .await
            .contains("gateway_account_untold{account=\"one\",model=\"gpt\"} 1")
    );
    for scheme in ["light", "dark"] {
        let wanted = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.emulate("setEmulatedMedia", wanted).await;
        // Colors pass into each other for a moment.
        let begun = tokio::time::Instant::now();
        loop {
            let pale = browser.run(PALE).await;
            if pale == json!([]) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{scheme}: {pale}");
        }
    }

    let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
    browser.emulate("setDeviceMetricsOverride", phone).await;
    until(|| async { browser.run("innerWidth").await == 390 }).await;
    // Nothing is cut off, or has to be looked for at the side.
    let cut = "[...document.querySelectorAll('body *')].filter(own => own.clientWidth > 1 && own.scrollWidth > own.clientWidth + 1 && getComputedStyle(own).overflowX !== 'visible').map(own => own.outerHTML.slice(0, 80))";
    assert_eq!(browser.run(cut).await, json!([]));
    assert_eq!(browser.run("document.documentElement.scrollWidth").await, 390);

    server.restart(Data::Lost);
    until(|| async { browser.run(visible).await == false }).await;
    let visible = "document.querySelector('#untold').checkVisibility()";
    until(|| async { browser.run(visible).await == false }).await;
}
