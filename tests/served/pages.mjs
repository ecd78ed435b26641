// What people see and do on the pages, in a real browser. Each picture is kept; axe looks at each page, light and dark,
// in both languages, on a desk and on a phone.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Browser } from "./browser.mjs";

const { URL: url, PICTURES: pictures, AXE_FILE: axe, CHROMIUM: chromium, LINK: link, BOOKING: booking, WEEK: from } = process.env;
const week = `${url}/?from=${from}`; // every day of it is ahead
/// The code of a new sign-in link of somebody, which ends those before.
const codeFor = (who) => execFileSync(link, [who], { encoding: "utf8" }).trim().split("#").pop();
const source = readFileSync(axe, "utf8");
const browser = await Browser.start(chromium);
let passed = 0, failed = 0;

function check(what, good, shown = "") {
  if (good) return void passed++;
  failed++;
  console.log(`FAILED: ${what} ${typeof shown === "string" ? shown : JSON.stringify(shown)}`);
}
async function part(name, body) {
  try { await body(); console.log(`${name}: done`); } catch (error) { check(name, false, String(error.stack ?? error)); }
}
/// axe and a picture; nothing is wider than the window.
async function look(page, name) {
  await page.picture(join(pictures, `${name}.png`));
  const wide = await page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
  check(`${name} fits the window`, wide <= 0, `${wide} px too wide`);
  check(`${name} has no error`, page.errors.length === 0, page.errors);
  page.errors = [];
  if (!page.script) return;
  await page.eval(`${source};0`);
  const found = await page.eval(`axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })
    .then((r) => r.violations.map((v) => v.id + ": " + v.help + " " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join(" | ")))`);
  check(`${name} is clean for axe`, found.length === 0, found);
}
/// What a select shows fits its box, at a desk's three columns too: what is longer is cut off and says less.
async function cutOff(page, name) {
  const cut = await page.eval(`[...document.querySelectorAll(".book select")].filter((s) => {
    const pen = document.createElement("canvas").getContext("2d"), style = getComputedStyle(s);
    pen.font = style.fontWeight + " " + style.fontSize + " " + style.fontFamily;
    const room = s.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 20; // the arrow
    return pen.measureText(s.selectedOptions[0].text).width > room;
  }).map((s) => s.id + ": " + s.selectedOptions[0].text)`);
  check(`${name} cuts no choice off`, cut.length === 0, cut);
}
/// What is short stands in one line, and the pages' names take little of a phone.
async function whole(page, name) {
  const broken = await page.eval(`[...document.querySelectorAll(".top nav a, .badge, .key, th[scope=col]")].filter((e) => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1;
  }).map((e) => e.outerHTML)`);
  check(`${name} breaks no word`, broken.length === 0, broken);
  const high = await page.eval(`document.querySelector(".top").getBoundingClientRect().height`);
  check(`${name} has a low head`, high < 130, high);
}
/// Signs in by the page, as with a link from an admin.
async function signed(who, options) {
  const code = codeFor(who);
  const page = await browser.page(options);
  if (options?.script === false) {
    await page.go(`${url}/sign-in`);
    await page.eval(`document.querySelector("#code").value = ${JSON.stringify(code)}`);
  } else {
    await page.go(`${url}/sign-in#${code}`);
    check("the code is taken out of the address", !(await page.eval("location.href")).includes(code));
  }
  await page.loading(() => page.click("main form button"));
  check("signed in", (await page.eval("location.pathname")) === "/", await page.eval("document.body.innerText"));
  return page;
}
const api = (page, path, body) => page.eval(`fetch(${JSON.stringify(path)}).then((a) => a.json())`);
/// The bookings that somebody has after something was done, and had not before.
async function made(page, who, act) {
  const open = () => api(page, `/api/v1/bookings?person=${who}&open=true`);
  const before = (await open()).map((b) => b.id);
  await act();
  return (await open()).filter((b) => !before.includes(b.id));
}

await part("before signing in", async () => {
  const page = await browser.page();
  await page.go(`${url}/`);
  check("nobody sees the week unasked", (await page.eval("location.pathname")) === "/sign-in");
  await look(page, "sign-in");
  await page.loading(() => page.eval(`document.querySelector("#code").value = "kct_wrong"; document.querySelector("main form").requestSubmit()`));
  check("a wrong code is refused with its code", /KC-/.test(await page.eval("document.body.innerText")));
  page.errors = []; // the refusal's status is one to the browser
  await look(page, "sign-in-refused");
});

/// The countdown loses a second by itself. Seconds are shown in the last quarter of an hour; what somebody has touched is
/// not fetched anew meanwhile.
async function counts(page) {
  const shown = (more) => `((t) => { const [, m, s] = /(\\d+) min (\\d+) s$/.exec(t) ?? []; const left = m * 60 + +s; return ${more} ? left : null; })(
    document.querySelector("#slots .active [data-until]").textContent)`;
  await page.eval(`document.querySelector("#slots").dataset.touched = "yes";
    document.querySelector("#slots .active [data-until]").dataset.until = Math.floor(Date.now() / 1000) + 300`);
  const left = await page.until("the seconds of the countdown", shown("left > 0 && left <= 300"));
  const next = await page.until("the countdown's next second", shown(`left > 0 && left !== ${left}`));
  check("it counts down", next < left, `${left}, then ${next}`);
}
let amy, tea;
await part("a student at a desk", async () => {
  amy = await signed("amy");
  await amy.go(week);
  const text = await amy.eval("document.body.innerText");
  check("the running slot counts down", /ends in|left/i.test(text) && (await amy.eval(`!!document.querySelector(".slot.active [data-until]")`)), text.slice(0, 400));
  check("how to connect is shown", text.includes(`kubecamp book ssh ${booking}`));
  check("what others wrote is text", !(await amy.eval(`[...document.querySelectorAll("script")].some((s) => !s.src)`)) && text.includes("new disk <script>"));
  await look(amy, "week");
  check("seven days of every server", (await amy.eval(`document.querySelectorAll(".day").length`)) === 7 && (await amy.eval(`document.querySelectorAll(".day:first-of-type .line").length`)) >= 4);
  await counts(amy);
});
/// The moments at two shares of a free stretch, and the steps of the raster, half an hour long, that they lie in.
async function times(page, selector, from, to = from) {
  const [first, ...at] = await page.eval(`(() => {
    const free = document.querySelector(${JSON.stringify(selector)}), day = free.closest(".day").dataset;
    const box = free.getBoundingClientRect(), track = free.closest(".track").getBoundingClientRect();
    const at = (share) => +day.starts + ((box.x + box.width * share - track.x) / track.width) * day.units * 300;
    return [+free.dataset.starts, at(${from}), at(${to})];
  })()`);
  const line = (round, t) => first + round((t - first) / 1800) * 1800;
  return { at, starts: line(Math.floor, at[0]), ends: line(Math.ceil, at[1]) };
}
await part("booking by drag", async () => {
  const free = `.day:nth-of-type(4) .free a[data-server="two"]`, want = await times(amy, free, 0.1, 0.2);
  await amy.drag(free, 0.1, 0.2);
  const start = await amy.eval(`document.querySelector("#f-start").value`), server = await amy.eval(`document.querySelector("#f-server").value`);
  check("the form is filled", server === "two" && /^\d{4}-\d\d-\d\dT\d\d:(00|30)$/.test(start), `${server} ${start}`);
  await amy.eval(`document.querySelector("#f-layout").value = "2x4c8g"`);
  const own = await made(amy, "amy", () => amy.loading(() => amy.click(`form.book button[value=book]`)));
  const spans = own.length === 1 && own[0].window.starts === want.starts && own[0].window.ends === want.ends;
  check("the drag is booked", spans && own[0].server === "two" && own[0].layout === "2x4c8g", [want, own]);
  await look(amy, "booked");
});
await part("a click, and a cancel", async () => {
  await amy.eval(`document.querySelector("#f-server").value = "one"`);
  const now = Math.floor(Date.now() / 1000);
  const shown = await api(amy, `/api/v1/week?from=${now}&to=${now + 86400}`);
  check("the week answers", shown.servers.length === 4, JSON.stringify(shown).slice(0, 200));
  const free = `.day:nth-of-type(5) .free a[data-server="one"]`, { at: [clicked] } = await times(amy, free, 0.3);
  await amy.click(free, 0.3);
  const own = await made(amy, "amy", () => amy.loading(() => amy.click(`form.book button[value=book]`)));
  const { starts, ends } = own[0]?.window ?? {};
  check("a click books an hour", own.length === 1 && own[0].server === "one" && ends - starts === 3600, own);
  check("that which was clicked", starts <= clicked && clicked < ends, [clicked, own]);
  const taken = await amy.eval(`document.querySelector(".day:nth-of-type(5) .own a").getAttribute("href")`);
  await amy.go(url + taken);
  await look(amy, "booking");
  await amy.loading(() => amy.click(`form[action$="/cancel"] button`));
  const left = (await api(amy, "/api/v1/bookings?person=amy&open=true")).map((b) => b.id);
  check("it is cancelled", taken.endsWith(own[0].id) && left.length === 3 && !left.includes(own[0].id), [taken, left]);
});
await part("extend, and what a second tab says", async () => {
  await amy.go(`${url}/keys`);
  await look(amy, "keys");
  await amy.eval(`document.querySelector("#keys").value = "ssh-ed25519 <b>nonsense</b>"`);
  await amy.loading(() => amy.click("main form button"));
  check("a wrong key is refused and still there", (await amy.eval("document.body.innerText")).includes("KC-HUB-INVALID") && (await amy.eval(`document.querySelector("#keys").value`)).includes("<b>nonsense"));
  amy.errors = []; // the refusal's status is one to the browser
  await amy.go(`${url}/booking/${booking}`);
  const words = await amy.eval("document.body.innerText");
  check("how to connect by plain ssh", words.includes(`kubecamp book ssh ${booking} --write slot.conf`) && words.includes(`ssh -F slot.conf kubecamp-${booking}`), words);
  await look(amy, "running");
  await amy.loading(() => amy.click(`form[action$="/extend"] button`));
  const after = await api(amy, `/api/v1/bookings/${booking}`);
  check("it is extended", after.window.ends - after.window.starts > 7200, after);
});
await part("a refusal brings alternatives", async () => {
  const cem = await signed("cem");
  const bobs = (await api(cem, "/api/v1/bookings?server=one&open=true")).find((b) => b.person === "bob") ?? null;
  await cem.go(`${url}/`);
  const where = await cem.eval(`(() => { const t = [...document.querySelectorAll(".day .taken")][0]; return !!t; })()`);
  check("others' slots are shown as taken", where);
  const at = await cem.eval(`(() => { const f = document.querySelector("form.book"); f.elements.server.value = "one";
    const now = Math.floor(Date.now() / 1000 / 1800) * 1800; f.elements.starts_at.value = now + 14400; f.elements.ends_at.value = now + 21600;
    f.elements.start.value = "2030-01-01T00:00"; f.elements.end.value = "2030-01-01T02:00"; return true; })()`);
  await cem.loading(() => cem.click(`form.book button[value=book]`));
  check("the refusal has three alternatives", (await cem.eval(`document.querySelectorAll(".slots .big").length`)) === 3, [at, bobs === null, await cem.eval("document.body.innerText")]);
  cem.errors = [];
  await look(cem, "refused");
  await cem.loading(() => cem.click(".slots .big"));
  const own = await api(cem, "/api/v1/bookings?person=cem&open=true");
  check("an alternative is one click", own.some((b) => b.state === "booked"), own);
});
await part("live: what others do appears by itself", async () => {
  await amy.go(week);
  const before = await amy.eval(`document.querySelectorAll("#week .taken").length`);
  tea = await signed("ann");
  check("an admin sees the teacher's pages", await tea.eval(`!!document.querySelector('a[href="/teacher"]')`));
  await tea.go(`${url}/teacher`);
  await look(tea, "teacher");
  await tea.go(`${url}/teacher/class`);
  await tea.loading(() => tea.click(`main form button[value=plan]`));
  check("the class has a table", (await tea.eval(`document.querySelectorAll("main tbody tr").length`)) === 4, await tea.eval("document.body.innerText"));
  await look(tea, "class");
  await tea.go(`${url}/teacher/audit`);
  await look(tea, "audit");
  await tea.go(week);
  await tea.eval(`document.querySelector("#f-person").value = "bob"; document.querySelector("#f-layout").value = "1x4c12g"`);
  await tea.click(`.day:nth-of-type(6) .free a[data-server="one"]`, 0.5);
  await tea.loading(() => tea.click(`form.book button[value=book]`));
  await amy.until("the other's slot on the open page", `document.querySelectorAll("#week .taken").length > ${before}`);
});
/// What of a day's bookings on the shared server lies on another one or is not what a pointer finds at its middle.
const covered = (page) => page.eval(`(() => {
  const all = [...document.querySelectorAll('.day:nth-of-type(2) :is(.own, .taken)')].filter((e) => e.closest(".track").getAttribute("aria-labelledby").endsWith("-two"));
  all[0]?.scrollIntoView({ block: "center", inline: "center" });
  const boxes = all.map((e) => e.getBoundingClientRect()), middle = (b) => document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2);
  const apart = (a, b) => a.bottom <= b.top || b.bottom <= a.top || a.right <= b.left || b.right <= a.left;
  const wrong = all.filter((e, n) => boxes.some((b, m) => m !== n && !apart(b, boxes[n])) || !(e.querySelector("a") ?? e).contains(middle(boxes[n])));
  return { seen: all.length, links: all.filter((e) => e.querySelector("a")).length, wrong: wrong.map((e) => e.outerHTML.slice(0, 160)) };
})()`);
await part("three at once on a shared server", async () => {
  await tea.go(week);
  const all = await covered(tea);
  check("none lies on another, and each link is found", all.seen === 3 && all.links === 3 && all.wrong.length === 0, all);
  const fay = await signed("fay", { width: 390, height: 844 });
  await fay.go(week);
  const own = await covered(fay);
  check("one's own is seen among them", own.seen === 3 && own.links === 1 && own.wrong.length === 0, own);
  await look(fay, "phone-shared");
});
await part("a phone's week begins now", async () => {
  const page = await browser.page({ beside: tea, width: 390, height: 844 });
  await page.go(`${url}/`);
  const shown = await page.eval(`(() => { const box = (e) => document.querySelector(e).getBoundingClientRect(), now = box("#today .now");
    const folded = [...document.querySelectorAll(".day.over")].every((day) => day.closest("details:not([open])"));
    return { folded, now: now.left, from: box("#today .name").right, to: box("#week .scroll").right }; })()`);
  check("days that are over are folded", shown.folded);
  check("the line of this moment is seen", shown.from <= shown.now && shown.now < shown.to, shown);
  await look(page, "phone-today");
  await page.go(`${url}/teacher`);
  await look(page, "phone-teacher");
  await whole(page, "phone-teacher");
  await page.loading(() => page.click(`.langs a[lang="zh-Hans"]`));
  await look(page, "phone-zh-teacher");
  await whole(page, "phone-zh-teacher");
  await page.loading(() => page.click(`.langs a[lang="en"]`));
  await page.go(week);
  const first = await page.eval(`document.querySelector("#week .scroll").scrollLeft`);
  check("another week does not begin at midnight", first > 0, first);
  await page.loading(() => page.click(`#week nav a[href="/#today"]`));
  await page.until("today in the window", `(({ top }) => top >= 0 && top < innerHeight)(document.querySelector("#today").getBoundingClientRect())`);
});
await part("the keyboard alone", async () => {
  await amy.go(week);
  await amy.key("Tab");
  check("the first stop leads past the navigation", (await amy.eval("document.activeElement.className")) === "skip");
  let reached = false;
  for (let n = 0; n < 400 && !reached; n++) {
    await amy.key("Tab");
    reached = await amy.eval(`document.activeElement.matches('.free a[data-server="late"]')`);
    const ring = n % 20 ? true : await amy.eval(`document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== "none"`);
    check("what has the keyboard is seen", ring, await amy.eval("document.activeElement.outerHTML.slice(0, 200)"));
  }
  check("a free slot is reached", reached);
  await amy.loading(() => amy.key("Enter", "Enter", "\r"));
  check("it fills the form", (await amy.eval(`document.querySelector("#f-server").value`)) === "late");
  await amy.eval(`document.querySelector("form.book button[value=book]").focus()`);
  await amy.loading(() => amy.key("Enter", "Enter", "\r"));
  check("and books", (await api(amy, "/api/v1/bookings?person=amy&open=true")).some((b) => b.server === "late"), await amy.eval("document.body.innerText.slice(0, 500)"));
});
/// A finger that moves over free time scrolls the week and picks nothing; its tap picks an hour.
async function fingers(page) {
  await page.touched();
  await page.go(week);
  const free = `.day:nth-of-type(2) .free a[data-server="one"]`, left = `document.querySelector("#week .scroll").scrollLeft`;
  const start = () => page.eval(`document.querySelector("#f-start").value + " " + document.querySelector("form.book").elements.starts_at.value`);
  const middle = async () => { const box = await page.place(free); return [250, box.y + box.height / 2]; };
  const [x, y] = await middle(), [began, before] = [await page.eval(left), await start()];
  check("there is room to scroll", began > 0 && (await page.eval(`document.elementFromPoint(${x}, ${y}).matches(${JSON.stringify(`${free}, ${free} *`)})`)), began);
  await page.swipe(x, y, began > 150 ? 150 : -150);
  await page.until("the week under the finger", `Math.abs(${left} - ${began}) > 50`);
  // It rolls on for a moment, and a tap would only stop it.
  await page.eval(`new Promise((done) => { let was, still = 0; const look = () => { const now = ${left}; still = now === was ? still + 1 : 0; was = now;
    if (still > 20) done(true); else requestAnimationFrame(look); }; look(); })`);
  check("a finger that scrolls picks nothing", (await start()) === before && !(await page.eval(`!!document.querySelector(".mark")`)), await start());
  await page.tap(...(await middle()));
  await page.until("the tapped hour in the form", `(() => { const f = document.querySelector("form.book").elements;
    return f.server.value === "one" && f.ends_at.value - f.starts_at.value === 3600 && document.activeElement.value === "book"; })()`);
  const button = await page.place("form.book button[value=book]");
  const own = await made(page, "amy", () => page.loading(() => page.tap(button.x + button.width / 2, button.y + button.height / 2)));
  check("and a tap books it", own.length === 1 && own[0].server === "one" && own[0].window.ends - own[0].window.starts === 3600, own);
}
await part("dark, Chinese, a phone", async () => {
  const page = await signed("amy", { width: 390, height: 844, dark: true, lang: "zh-CN" });
  check("Chinese by the browser's word", (await page.eval("document.documentElement.lang")).startsWith("zh") && /[\u4e00-\u9fff]/.test(await page.eval("document.body.innerText")));
  check("dark", (await page.eval("getComputedStyle(document.body).backgroundColor")) !== "rgb(246, 247, 248)");
  await look(page, "phone-zh-dark");
  await cutOff(page, "phone-zh-dark");
  await whole(page, "phone-zh-dark");
  await page.go(`${url}/booking/${booking}`);
  await look(page, "phone-zh-dark-booking");
  await page.loading(() => page.click(`.langs a[lang="en"]`));
  check("English by choice", (await page.eval("document.documentElement.lang")) === "en");
  await look(page, "phone-en-dark-booking");
  const small = await page.eval(`[...document.querySelectorAll("button, .button, select, input:not([type=hidden])")].filter((e) => e.getBoundingClientRect().height < 24).map((e) => e.outerHTML.slice(0, 120))`);
  check("what is touched is large enough", small.length === 0, small);
  await fingers(page);
});
await part("somebody in two courses chooses one", async () => {
  const dan = await signed("dan");
  await dan.go(week);
  check("both courses can be chosen", (await dan.eval(`[...document.querySelectorAll("#f-course option")].map((o) => o.value).join()`)) === "k8s,net");
  await look(dan, "two-courses");
  await cutOff(dan, "two-courses");
  await dan.loading(() => dan.click(`.langs a[lang="zh-Hans"]`));
  await cutOff(dan, "two-courses-zh");
  await dan.go(week);
  await dan.click(`.day:nth-of-type(3) .free a[data-server="two"]`, 0.4);
  await dan.eval(`document.querySelector("#f-course").value = "net"`);
  await dan.loading(() => dan.click(`form.book button[value=book]`));
  const own = await api(dan, "/api/v1/bookings?person=dan&open=true");
  check("it is booked in the course that was chosen", own.length === 1 && own[0].course === "net", own);
  await amy.go(week);
  check("who is in one is not asked", !(await amy.eval(`!!document.querySelector("#f-course")`)));
});
await part("a click into time of one course's raster alone chooses that course", async () => {
  const eve = await signed("eve");
  await eve.go(week);
  const chosen = () => eve.eval(`document.querySelector("#f-course").value`);
  await eve.eval(`document.querySelector("#f-course").value = "net"`);
  await eve.click(`.day:nth-of-type(3) .free a[data-server="one"]`, 0.4);
  check("what suits the chosen one is left to it", (await chosen()) === "net", await chosen());
  await eve.click(`.day:nth-of-type(3) .free a[data-server="slit"]`, 0.4);
  check("the course whose raster fits is chosen", (await chosen()) === "quick", await chosen());
  await eve.loading(() => eve.click(`form.book button[value=book]`));
  const own = await api(eve, "/api/v1/bookings?person=eve&open=true");
  check("and it is booked", own.length === 1 && own[0].course === "quick" && own[0].window.ends - own[0].window.starts === 1200, own);
});
await part("more tabs than a browser has connections", async () => {
  for (let n = 0; n < 8; n++) {
    const tab = await browser.page({ beside: amy });
    await tab.go(week);
    check(`tab ${n} shows the week`, await tab.eval(`!!document.querySelector("#week .own")`), await tab.eval("document.visibilityState"));
  }
});
await part("the waitlist: a wait, an offer, a yes, a gift", async () => {
  const bob = await signed("bob");
  await amy.go(week);
  await amy.eval(`document.querySelector("#f-layout").value = ""`);
  await amy.click(`.day:nth-of-type(5) .free a[data-server="one"]`, 0.6);
  await amy.loading(() => amy.click(`form.book button[value=book]`));
  await amy.go(week);
  const held = await amy.eval(`document.querySelector(".day:nth-of-type(5) .own a").getAttribute("href")`);
  const hers = await api(amy, `/api/v1/bookings/${held.split("/").pop()}`);
  await bob.go(week);
  await bob.eval(`(() => { const f = document.querySelector("form.book"); f.elements.server.value = "one"; f.elements.start.value = "2030-01-01T00:00";
    f.elements.end.value = "2030-01-01T02:00"; f.elements.starts_at.value = ${hers.window.starts}; f.elements.ends_at.value = ${hers.window.ends}; })()`);
  await bob.loading(() => bob.click(`form.book button[value=wait]`));
  const own = () => api(bob, "/api/v1/bookings?person=bob&open=true").then((all) => all.find((b) => b.window.starts === hers.window.starts));
  const waits = await own();
  check("he waits", waits?.state === "waitlisted", waits ?? (await bob.eval("document.body.innerText")));
  await bob.go(`${url}/booking/${waits.id}`);
  const home = await browser.page({ beside: bob });
  await home.go(`${url}/`);
  await amy.go(url + held);
  await amy.loading(() => amy.click(`form[action$="/cancel"] button`));
  await home.until("the offer on the open page", `document.querySelector("#slots .slot.offered")`);
  await bob.send("Page.bringToFront");
  await bob.until("the offer's button on the open page", `document.querySelector('form[action$="/accept"] button')`);
  await look(bob, "offer");
  await bob.loading(() => bob.click(`form[action$="/accept"] button`));
  check("the offer is taken", (await own())?.state === "booked", await bob.eval("document.body.innerText"));
  await bob.eval(`document.querySelector("#to").value = "cem"`);
  await look(bob, "give");
  await bob.loading(() => bob.click(`form[action$="/give"] button`));
  check("it is given away", (await api(bob, `/api/v1/bookings/${waits.id}`)).person === "cem", await bob.eval("document.body.innerText"));
});
await part("a server goes out of use, and a slot is moved", async () => {
  const on = (await api(amy, "/api/v1/bookings?person=amy&open=true")).find((b) => b.server === "two");
  const health = async (to) => {
    await tea.go(`${url}/teacher`);
    await tea.eval(`document.querySelector("#w-two").value = "new disk"`);
    await tea.loading(() => tea.click(`form[action="/teacher/server/two"] button[value=${to}]`));
  };
  await health("away");
  await amy.go(`${url}/booking/${on.id}`);
  await look(amy, "move");
  await amy.loading(() => amy.click(`form[action$="/move"] button`));
  const after = await api(amy, `/api/v1/bookings/${on.id}`);
  check("it is on another server", after.state === "booked" && after.server !== "two", after);
  await health("healthy");
});
await part("pages that are seldom seen", async () => {
  await amy.go(`${url}/calendar`);
  await look(amy, "calendar");
  await amy.loading(() => amy.click("main form button"));
  await look(amy, "calendar-address");
  await amy.go(`${url}/booking/nothing`);
  check("what is not there is told with its code", /KC-/.test(await amy.eval("document.body.innerText")));
  amy.errors = []; // the refusal's status is one to the browser
  await look(amy, "problem");
  await tea.go(`${url}/teacher`);
  await tea.eval(`document.querySelector("#person").value = "dan"`);
  await tea.loading(() => tea.click(`form[action="/teacher/link"] button`));
  check("a link for somebody", (await tea.eval(`document.querySelector("#link").value`)).includes("/sign-in#"));
  await look(tea, "link");
});
await part("dark at a desk", async () => {
  for (const page of [amy, tea]) await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: "dark" }] });
  const looks = [[amy, week, "week"], [amy, `${url}/booking/${booking}`, "running"], [amy, `${url}/calendar`, "calendar"], [amy, `${url}/booking/nothing`, "problem"], [tea, `${url}/teacher`, "teacher"], [tea, `${url}/teacher/audit`, "audit"]];
  for (const [page, where, name] of looks) {
    await page.go(where);
    if (name === "problem") page.errors = []; // the refusal's status is one to the browser
    check(`${name} is dark`, (await page.eval("getComputedStyle(document.body).backgroundColor")) !== "rgb(246, 247, 248)");
    await look(page, `dark-${name}`);
  }
});
await part("a slot is released", async () => {
  await amy.go(`${url}/booking/${booking}`);
  await amy.loading(() => amy.click(`form[action$="/release"] button`));
  const after = await api(amy, `/api/v1/bookings/${booking}`);
  check("its end is now", after.window.ends <= Date.now() / 1000 + 1, after);
});
await part("without scripts", async () => {
  const page = await signed("amy", { script: false });
  await page.go(week);
  await page.loading(() => page.eval(`document.querySelector('.day:nth-of-type(7) .free a[data-server="one"]').click()`));
  check("a link fills the form", (await page.eval(`document.querySelector("#f-server").value`)) === "one");
  await look(page, "without-scripts");
  const before = (await page.eval(`document.querySelectorAll("#slots li").length`));
  await page.loading(() => page.click(`form.book button[value=book]`));
  check("it is booked", (await page.eval(`document.querySelectorAll("#slots li").length`)) === before + 1, await page.eval("document.body.innerText.slice(0, 600)"));
  await page.loading(() => page.eval(`document.querySelector('a[href="/calendar"]').click()`));
  await page.loading(() => page.click("main form button"));
  check("a calendar's address", /\/calendar\/.+\.ics/.test(await page.eval(`document.querySelector("#feed").value`)));
  await page.loading(() => page.click(".out button"));
  check("signed out", (await page.eval("location.pathname")) === "/sign-in", await page.eval("location.pathname"));
});
await browser.stop();
console.log(`pictures: ${pictures}\n${passed} checks hold, ${failed} do not`);
process.exitCode = failed ? 1 : 0;
