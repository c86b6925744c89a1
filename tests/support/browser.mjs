// Headless Chromium, driven over its own pipe (--remote-debugging-pipe), so no package is needed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const DEADLINE_MS = 30_000;
const COMMAND_MS = 20_000;

export class Browser {
  // With these options beside those that every test wants.
  constructor(...options) {
    this.profile = mkdtempSync(join(tmpdir(), "tidegate-browser-"));
    this.child = spawn(process.env.CHROMIUM ?? "chromium", [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
      `--user-data-dir=${this.profile}`, ...options, "about:blank",
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
    const { errorText } = await this.send("Page.navigate", { url });
    if (errorText) throw new Error(errorText);
    await until(`${url} is loaded`, async () => (await this.evaluate("document.readyState")) === "complete"
      && (await this.evaluate("location.href")) === url);
  }

  // Nothing while the page is being loaded anew.
  text(name) { return this.evaluate(`document.querySelector('[data-t="${name}"]')?.textContent ?? ""`); }

  state() { return this.evaluate("document.body?.dataset.state"); }

  async shot(file) {
    const { cssContentSize } = await this.send("Page.getLayoutMetrics");
    const clip = { x: 0, y: 0, width: cssContentSize.width, height: cssContentSize.height, scale: 1 };
    const { data } = await this.send("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: true });
    writeFileSync(file, Buffer.from(data, "base64"));
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

export async function until(what, holds) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `${what}: not within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
