// Belongs: a real Chromium, driven over its debugging pipe; no library is needed for that.
// Never: what the pages should show.
// Start here: `Browser.start`, then `Page.go`.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const LIMIT = 30_000;

export class Browser {
  static async start(program) {
    const browser = new Browser();
    browser.profile = mkdtempSync(join(tmpdir(), "kubecamp-pages-"));
    const options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb",
      "--remote-debugging-pipe", `--user-data-dir=${browser.profile}`, "about:blank"];
    browser.child = spawn(program, options, { detached: true, stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    browser.next = 1;
    browser.waiting = new Map();
    browser.pages = new Map();
    let rest = Buffer.alloc(0);
    browser.child.stdio[4].on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) browser.heard(JSON.parse(rest.subarray(0, end)));
    });
    browser.child.on("exit", () => browser.waiting.forEach((w) => w.fail(new Error("the browser ended"))));
    await browser.send("Browser.getVersion");
    return browser;
  }
  heard(message) {
    if (message.id) {
      const waiting = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      return message.error ? waiting?.fail(new Error(`${waiting.what}: ${message.error.message}`)) : waiting?.done(message.result);
    }
    this.pages.get(message.sessionId)?.heard(message);
  }
  send(what, params = {}, sessionId) {
    const id = this.next++;
    return new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error(`${what} got no answer`)), LIMIT);
      const end = (f) => (value) => { clearTimeout(timer); f(value); };
      this.waiting.set(id, { what, done: end(done), fail: end(fail) });
      this.child.stdio[3].write(JSON.stringify({ id, method: what, params, sessionId }) + "\0");
    });
  }
  /// A page with cookies of its own, or one more of another's.
  async page({ beside, ...options } = {}) {
    const { browserContextId } = beside ? { browserContextId: beside.context } : await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, browserContextId);
    this.pages.set(sessionId, page);
    await page.begin(options);
    return page;
  }
  stop() {
    // With its helpers, which would write into the profile for a moment more.
    process.kill(-this.child.pid, "SIGKILL");
    return new Promise((done) => this.child.once("exit", () => { rmSync(this.profile, { recursive: true, force: true, maxRetries: 20 }); done(); }));
  }
}

class Page {
  constructor(browser, session, context) { Object.assign(this, { browser, session, context, loads: 0, errors: [], script: true }); }
  send(what, params) { return this.browser.send(what, params, this.session); }
  heard({ method, params }) {
    if (method === "Page.loadEventFired") this.loads++;
    if (method === "Runtime.exceptionThrown") this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Log.entryAdded" && params.entry.level === "error") this.errors.push(`${params.entry.text} ${params.entry.url ?? ""}`);
  }
  async begin({ width = 1280, height = 900, dark = false, script = true, lang = "en-US" }) {
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.send(`${domain}.enable`);
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
    await this.send("Network.setExtraHTTPHeaders", { headers: { "Accept-Language": lang } });
    this.script = script;
    if (!script) await this.send("Emulation.setScriptExecutionDisabled", { value: true });
  }
  /// What an expression is on the page; also where the page's own scripts are switched off.
  async eval(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })
      .catch((error) => { throw new Error(`${error.message}: ${expression.slice(0, 200)}`); });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }
  async until(what, expression) {
    for (const began = Date.now(); ;) {
      const value = await this.eval(expression).catch(() => null);
      if (value) return value;
      if (Date.now() - began > LIMIT) throw new Error(`${what} did not happen; the page has: ${(await this.eval("document.body.innerText")).slice(0, 600)}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  /// Does something that loads another page, and waits for that.
  async loading(act) {
    const before = this.loads, began = Date.now();
    await act();
    while (this.loads === before) {
      if (Date.now() - began > LIMIT) throw new Error("no page was loaded");
      await new Promise((done) => setTimeout(done, 20));
    }
  }
  go(url) { return this.loading(() => this.send("Page.navigate", { url })); }
  async place(selector) {
    const box = await this.eval(`(() => { const e = document.querySelector(${JSON.stringify(selector)}); if (!e) return null;
      e.scrollIntoView({ block: "center", inline: "center" }); const b = e.getBoundingClientRect(); return { x: b.x, y: b.y, width: b.width, height: b.height }; })()`);
    if (!box) throw new Error(`there is no ${selector}`);
    return box;
  }
  mouse(type, x, y, buttons = 0) { return this.send("Input.dispatchMouseEvent", { type, x, y, button: type === "mouseMoved" && !buttons ? "none" : "left", buttons, clickCount: type === "mouseMoved" ? 0 : 1 }); }
  async click(selector, at = 0.5) {
    const box = await this.place(selector), [x, y] = [box.x + box.width * at, box.y + box.height / 2];
    await this.mouse("mouseMoved", x, y);
    await this.mouse("mousePressed", x, y, 1);
    await this.mouse("mouseReleased", x, y);
  }
  async drag(selector, from, to) {
    const box = await this.place(selector), y = box.y + box.height / 2, x = (share) => box.x + box.width * share;
    await this.mouse("mouseMoved", x(from), y);
    await this.mouse("mousePressed", x(from), y, 1);
    for (let n = 1; n <= 5; n++) await this.mouse("mouseMoved", x(from + ((to - from) * n) / 5), y, 1);
    await this.mouse("mouseReleased", x(to), y);
  }
  /// From now on there are fingers too.
  touched() { return this.send("Emulation.setTouchEmulationEnabled", { enabled: true, maxTouchPoints: 1 }); }
  touch(type, ...touchPoints) { return this.send("Input.dispatchTouchEvent", { type, touchPoints }); }
  /// A finger is put down there and moves sideways: to the right by so many pixels, or to the left. The browser's own gestures
  /// (`Input.synthesizeScrollGesture`) come as touches here and scroll nothing.
  async swipe(x, y, by) {
    await this.touch("touchStart", { x, y });
    for (let n = 1; n <= 10; n++) await this.touch("touchMove", { x: x + (by * n) / 10, y });
    await this.touch("touchEnd");
  }
  async tap(x, y) {
    await this.touch("touchStart", { x, y });
    await this.touch("touchEnd");
  }
  async key(key, code = key, text) {
    const codes = { Tab: 9, Enter: 13 };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, code, windowsVirtualKeyCode: codes[key], text });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, code, windowsVirtualKeyCode: codes[key] });
  }
  async picture(file) {
    const { cssContentSize } = await this.send("Page.getLayoutMetrics");
    const clip = { x: 0, y: 0, width: cssContentSize.width, height: Math.min(cssContentSize.height, 3000), scale: 1 };
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true, clip });
    writeFileSync(file, Buffer.from(data, "base64"));
  }
}
