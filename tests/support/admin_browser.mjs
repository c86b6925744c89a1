// Opens the status page in headless Chromium while a server is loaded, and looks at what a person
// would see. Called by tests/status.rs:
//   node admin_browser.mjs ADMIN_URL TARGET_URL TIDEGATE PID SHOTS_DIR
// Chromium is driven over its own pipe (--remote-debugging-pipe), so no package is needed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [admin, target, tidegate, pid, shots] = process.argv.slice(2);
const DEADLINE_MS = 30_000;
const COMMAND_MS = 20_000;

class Browser {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), "tidegate-browser-"));
    this.child = spawn(process.env.CHROMIUM ?? "chromium", [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
      `--user-data-dir=${this.profile}`, "about:blank",
    ], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], detached: true });
    this.next = 1;
    this.waiting = new Map();
    this.events = [];
    let rest = "";
    this.child.stdio[4].on("data", (bytes) => {
      const messages = (rest + bytes).split("\0");
      rest = messages.pop();
      for (const message of messages) this.take(JSON.parse(message));
    });
    this.child.stdio[3].on("error", () => {});
  }

  take(message) {
    const waiting = this.waiting.get(message.id);
    if (!waiting) return void this.events.push(message);
    this.waiting.delete(message.id);
    if (message.error) waiting.reject(new Error(`${waiting.method}: ${message.error.message}`));
    else waiting.resolve(message.result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.next++;
    this.child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer`)), COMMAND_MS);
      const done = (end) => (value) => { clearTimeout(timer); end(value); };
      this.waiting.set(id, { resolve: done(resolve), reject: done(reject), method });
    });
  }

  async page() {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.send(`${domain}.enable`);
    return page;
  }

  async close() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    // Its helpers write to the profile until they end too: they are of its process group.
    process.kill(-this.child.pid, "SIGKILL");
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

class Page {
  constructor(browser, sessionId, targetId) {
    Object.assign(this, { browser, sessionId, targetId });
  }

  send(method, params) { return this.browser.send(method, params, this.sessionId); }

  async evaluate(expression) {
    const answer = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.text);
    return answer.result.value;
  }

  async look({ width = 1280, height = 900, dark = false, script = true } = {}) {
    const mobile = width < 600;
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, mobile, deviceScaleFactor: mobile ? 2 : 1 });
    await this.send("Emulation.setEmulatedMedia",
      { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
    await this.send("Emulation.setScriptExecutionDisabled", { value: !script });
  }

  async open(url) {
    await this.send("Page.navigate", { url });
    await until(`${url} is loaded`, async () => (await this.evaluate("document.readyState")) === "complete"
      && (await this.evaluate("location.href")) === url);
  }

  // Nothing while the page is being loaded anew.
  text(name) { return this.evaluate(`document.querySelector('[data-t="${name}"]')?.textContent ?? ""`); }

  state() { return this.evaluate("document.body?.dataset.state"); }

  async shot(name) {
    const { cssContentSize } = await this.send("Page.getLayoutMetrics");
    const clip = { x: 0, y: 0, width: cssContentSize.width, height: cssContentSize.height, scale: 1 };
    const { data } = await this.send("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: true });
    writeFileSync(join(shots, `${name}.png`), Buffer.from(data, "base64"));
  }

  // What the browser complained of, and what it asked for, on this page.
  complaints() {
    return this.browser.events.filter((event) => event.sessionId === this.sessionId).flatMap((event) => {
      if (event.method === "Runtime.exceptionThrown") return [event.params.exceptionDetails.text];
      if (event.method === "Runtime.consoleAPICalled") return [JSON.stringify(event.params.args)];
      if (event.method === "Log.entryAdded") return [event.params.entry.text + " " + (event.params.entry.url ?? "")];
      return [];
    });
  }

  requests() {
    return this.browser.events
      .filter((event) => event.sessionId === this.sessionId && event.method === "Network.requestWillBeSent")
      .map((event) => event.params.request.url);
  }
}

async function until(what, holds) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `${what}: not within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const number = (text) => Number(text.replaceAll(",", ""));
const threads = () => readdirSync(`/proc/${pid}/task`).length;

async function wellBehaved(page) {
  const style = await page.evaluate(`getComputedStyle(document.querySelector(".banner")).borderRadius`);
  assert.notEqual(style, "0px", "the policy lets the page's own style through");
  const wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
  assert.ok(wide <= 0, `the page is ${wide} px wider than the screen`);
}

async function looks(page) {
  for (const [device, width, height] of [["phone", 390, 844], ["desktop", 1280, 900]]) {
    for (const dark of [false, true]) {
      await page.look({ width, height, dark });
      await wellBehaved(page);
      await page.shot(`status-${device}-${dark ? "dark" : "light"}`);
    }
  }
  await page.look();
}

async function refused(page) {
  // Strict: a script and a style that are not the page's own do nothing.
  const blocked = await page.evaluate(`(async () => {
    const seen = [];
    document.addEventListener("securitypolicyviolation", (e) => seen.push(e.effectiveDirective));
    const script = document.createElement("script");
    script.textContent = "window.injected = true";
    document.body.append(script);
    const image = new Image();
    image.src = "/livez";
    document.body.append(image);
    await fetch("http://127.0.0.2:9/").catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 200));
    return [window.injected === true, ...[...new Set(seen)].sort()].join();
  })()`);
  assert.equal(blocked, "false,connect-src,img-src,script-src-elem");
}

async function withoutScript(browser) {
  const page = await browser.page();
  await page.look({ script: false });
  await page.open(`${admin}/status`);
  // The page's own script does not run; the debugger's questions still do.
  assert.equal(await page.evaluate(`document.getElementById("live").className`), "");
  const before = await page.text("time");
  assert.ok(number(await page.text("turns-now").then((t) => t.replace("/s", ""))) >= 0);
  assert.ok((await page.evaluate(`document.querySelectorAll("[data-r=limits] tr").length`)) > 5);
  await page.shot("status-without-script");
  await until("it refreshes itself", async () => !["", before].includes(await page.text("time")));
  await page.send("Page.close");
}

async function main() {
  mkdirSync(shots, { recursive: true });
  const browser = new Browser();
  let load;
  try {
    const page = await browser.page();
    await page.look();
    await page.open(`${admin}/status`);
    await until("the banner says that it serves", async () => (await page.state()) === "serving");
    assert.match(await page.text("why"), /0 of 4 workers busy/);
    assert.equal(await page.evaluate(`getComputedStyle(document.querySelector(".last .none")).display`), "block");
    const calm = threads();

    load = spawn(tidegate, ["stress", target, "-c", "60", "-d", "120s", "--warmup", "0s", "--reuse", "never"],
      { stdio: "ignore" });
    await until("the banner says that it sheds", async () => (await page.state()) === "shedding");
    assert.equal(await page.text("title"), "Shedding load");
    assert.match(await page.text("advice"), /raise --workers/);
    assert.match(await page.text("drops-rest"), /^Not once: max_connections, per_source/);
    assert.match(await page.text("why"), /^(The queue is full|Bursts overflow the queue): .* refused in the last \d s\./);
    const first = await page.evaluate(`document.querySelector("[data-r=listeners] td:nth-child(6)").textContent`);
    await until("the numbers move", async () => number(await page.evaluate(
      `document.querySelector("[data-r=listeners] td:nth-child(6)").textContent`)) > number(first) + 10);
    await until("refusals are listed", async () =>
      (await page.evaluate(`document.querySelectorAll("[data-r=refusals] tr").length`)) >= 3);
    assert.equal(await page.text("workers-limit"), "4");
    // Long enough for the sparklines to have a shape.
    const samples = `document.querySelector("[data-d=turns]").getAttribute("d").split("l1").length`;
    await until("the sparklines grow", async () => (await page.evaluate(samples)) > 15);
    await looks(page);
    assert.ok(threads() <= calm, `${threads()} threads with a page open, ${calm} before`);
    await withoutScript(browser);

    load.kill("SIGKILL");
    await until("the banner says that it serves again", async () => (await page.state()) === "serving");
    assert.deepEqual(page.complaints(), [], "no console errors");
    const elsewhere = page.requests().filter((url) => !url.startsWith(`${admin}/`) && !url.startsWith("data:"));
    assert.deepEqual(elsewhere, ["about:blank"].filter((url) => elsewhere.includes(url)), "nothing from elsewhere");
    await refused(page);

    // The server is told to end: the page says so, and then that it is gone.
    process.kill(Number(pid), "SIGTERM");
    await until("the banner says that it drains", async () => (await page.state()) === "draining");
    assert.match(await page.text("why"), /told to end/);
    await until("the page says that nobody answers", async () => (await page.state()) === "lost");
    assert.match(await page.evaluate(`document.getElementById("lost").textContent`), /No answer for \d+ s/);
    await page.shot("status-lost");
  } finally {
    load?.kill("SIGKILL");
    await browser.close();
  }
}

await main();
console.log("the status page is as it should be");
