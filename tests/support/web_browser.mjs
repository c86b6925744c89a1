// Opens a page in headless Chromium, whose script posts to its server and talks over a WebSocket. Called by tests/browser.rs:
//   node web_browser.mjs PAGE_URL [SPKI_HASH]
// Without a hash of the key that signed the server's certificate, Chromium has nobody to trust.
import assert from "node:assert/strict";
import { Browser, until } from "./browser.mjs";

const [url, trusted] = process.argv.slice(2);
const browser = new Browser(...(trusted ? [`--ignore-certificate-errors-spki-list=${trusted}`] : []));
try {
  const page = await browser.page();
  if (url.startsWith("https:") && !trusted) {
    await assert.rejects(page.open(url), /ERR_CERT_AUTHORITY_INVALID/);
    console.log("refused: nobody has vouched for the certificate");
  } else {
    await page.open(url);
    await until("the page's script is done", async () => (await page.state()) !== "busy");
    console.log(await page.evaluate("document.querySelector('pre').textContent"));
    assert.deepEqual(page.complaints(), []);
    const answers = browser.events.filter((event) => event.method === "Network.responseReceived")
      .map((event) => event.params.response).filter((response) => response.url === url);
    console.log(`${answers[0].protocol} ${answers[0].securityDetails?.protocol ?? "plain"}`);
  }
} finally {
  await browser.close();
}
