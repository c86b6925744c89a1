// Opens the status page in headless Chromium while a server is loaded, and looks at what a person
// would see. Called by tests/status.rs:
//   node admin_browser.mjs ADMIN_URL TARGET_URL TIDEGATE PID SHOTS_DIR
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Browser, until } from "./browser.mjs";

const [admin, target, tidegate, pid, shots] = process.argv.slice(2);

const shot = (page, name) => page.shot(join(shots, `${name}.png`));
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
      await shot(page, `status-${device}-${dark ? "dark" : "light"}`);
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
  await shot(page, "status-without-script");
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
    await shot(page, "status-lost");
  } finally {
    load?.kill("SIGKILL");
    await browser.close();
  }
}

await main();
console.log("the status page is as it should be");
