// Makes the pages nicer; they work without it. Live: own slots and the week are fetched anew when something happens.
"use strict";
const body = document.body.dataset;
const offset = Number(body.now) - Date.now() / 1000; // the hub's clock counts, not this computer's
const now = () => Math.floor(Date.now() / 1000 + offset);

function left(seconds) {
  const s = Math.max(0, seconds), parts = [];
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) parts.push(d + " " + body.days);
  if (h) parts.push(h + " " + body.hours);
  if (!d && m) parts.push(m + " " + body.minutes);
  if (!d && !h && m < 15) parts.push((s % 60) + " " + body.seconds);
  return parts.join(" ") || "0 " + body.seconds;
}
function count() {
  for (const p of document.querySelectorAll("[data-until]")) p.textContent = p.dataset.pattern.replace("{left}", left(p.dataset.until - now()));
}
count();
setInterval(count, 1000);

// The sign-in code stands after `#`, where only this script sees it.
const code = document.querySelector("[data-hash]");
if (code && location.hash.length > 1) {
  code.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}

// Where the week is wider than its window it begins at this moment; another week where the first server opens, or at eight
// where one is always open: nobody looks for the small hours first.
function begin(scroll) {
  const left = (e) => e.getBoundingClientRect().left - scroll.getBoundingClientRect().left + scroll.scrollLeft;
  const shown = [...scroll.querySelectorAll(".day")].filter((day) => !day.closest("details"));
  const all = (selector) => shown.flatMap((day) => [...day.querySelectorAll(selector)]);
  const least = (items) => items.reduce((most, item) => Math.min(most, left(item)), Infinity), zero = least(all(".heads .track"));
  let at = least(all(".now"));
  if (at === Infinity) at = least(all(".free, .own, .taken"));
  if (at <= zero || at === Infinity) at = least(all(".heads .hour").filter((hour) => hour.textContent.startsWith("08")));
  if (at < Infinity) scroll.scrollLeft = at - zero - 24;
}
const wide = document.querySelector("#week .scroll");
if (wide && wide.scrollWidth > wide.clientWidth) begin(wide);

// What stands in a form is not taken from whoever fills it in; the number that makes its click count once is new each time.
// Nor is a fold that somebody opened a change.
const plain = (part) => part.innerHTML.replace(/name="once" value="[^"]*"/g, "").replace(/(<details[^>]*) open=""/g, "$1");
addEventListener("input", (event) => {
  const part = event.target.closest("[data-live]");
  if (part) part.dataset.touched = "yes";
});
let drag = null, due = null;
async function refresh() {
  due = null;
  if (drag) return later();
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (!next || part.dataset.touched || plain(part) === plain(next)) continue;
    const had = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const scroll = part.querySelector(".scroll"), at = scroll ? scroll.scrollLeft : 0;
    const open = part.querySelector("details")?.open;
    part.innerHTML = next.innerHTML;
    if (scroll) part.querySelector(".scroll").scrollLeft = at;
    if (open && part.querySelector("details")) part.querySelector("details").open = true;
    if (had) { const again = part.querySelector('[href="' + CSS.escape(had) + '"]'); if (again) again.focus(); }
  }
  count();
}
function later() { due = due || setTimeout(refresh, 300); }
// A browser has six connections to a hub without TLS, and an open stream keeps one: only pages that are seen have one.
const states = ["waitlisted", "offered", "booked", "delayed", "arming", "active", "ending", "saving", "resetting", "done", "cancelled", "no-show", "quarantined", "moved", "refused", "stranded"];
let events = null;
function listen() {
  if (document.hidden && events) { events.close(); events = null; }
  if (document.hidden || events) return;
  events = new EventSource("/api/v1/events");
  events.onmessage = later;
  for (const kind of [...states.map((s) => "booking." + s), "server.changed"]) events.addEventListener(kind, later);
}
if (document.querySelector("[data-live]")) {
  listen();
  document.addEventListener("visibilitychange", () => { listen(); if (!document.hidden) later(); });
  setInterval(() => { if (!document.hidden) later(); }, 60000); // the line of this moment moves, and an event may have been missed
}

// A drag over free time, or a click into it, fills the form. A finger that moves scrolls the week; its tap is a click.
const local = (seconds) => {
  const f = new Intl.DateTimeFormat("en-CA", { timeZone: body.zone, year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const p = Object.fromEntries(f.formatToParts(new Date(seconds * 1000)).map((x) => [x.type, x.value]));
  return `${p.year}-${p.month}-${p.day}T${p.hour}:${p.minute}`;
};
const form = document.querySelector("form.book");
// Each course has a raster of its own; without this script the fields take the times of all.
const step = form && form.elements.start.step, chosenCourse = () => form.elements.course?.selectedOptions?.[0];
function steps() {
  for (const name of ["start", "end"]) form.elements[name].step = chosenCourse()?.dataset.step || step;
}
if (form) { steps(); form.elements.course?.addEventListener("change", steps); }
// The course that free time can be booked for, its raster in seconds and its first line there: the course that the server
// is for alone, else the chosen one, else the first of the finest raster that has a line there.
function raster(free, track) {
  const options = [...(form.elements.course?.options ?? [])];
  const only = [...form.elements.server.options].find((o) => o.value === free.server)?.dataset.course;
  let course = (only && options.find((o) => o.value === only)) || chosenCourse();
  const grids = track.dataset.grids.split(" "), lines = (free.lines || free.starts).split(" ").map(Number);
  let at = grids.indexOf(course?.dataset.grid);
  if (!lines[at]) {
    at = lines.findIndex((line) => line);
    // Who books for others may leave the course to whom it is for.
    if (course?.dataset.grid) course = options.find((o) => o.dataset.grid === grids[at]) || course;
  }
  return { course: course?.value, grid: grids[at] * 60, starts: lines[at] };
}
function moment(event) {
  const box = drag.track.getBoundingClientRect();
  const at = drag.day + ((event.clientX - box.left) / box.width) * drag.units * 300;
  return Math.max(drag.starts, Math.min(drag.ends, at));
}
function chosen() {
  const g = drag.grid, snap = (t) => drag.starts + Math.floor((t - drag.starts) / g) * g;
  const from = snap(Math.min(drag.from, drag.to));
  let to = drag.moved ? drag.starts + Math.ceil((Math.max(drag.from, drag.to) - drag.starts) / g) * g : from + Math.max(3600, g);
  while (to > drag.ends && to - g > from) to -= g;
  return [from, Math.max(to, from + g)];
}
function paint() {
  const [from, to] = chosen(), col = (t) => Math.round((t - drag.day) / 300);
  if (!drag.mark) {
    document.querySelectorAll(".mark").forEach((m) => m.remove());
    drag.mark = document.createElement("li");
    drag.track.append(drag.mark);
  }
  drag.mark.className = `mark s${col(from)} e${col(to)}`;
}
addEventListener("pointerdown", (event) => {
  const free = event.target.closest(".free a[data-starts]");
  if (!free || !form || event.button) return;
  const day = free.closest(".day").dataset, d = free.dataset;
  const track = free.closest(".track"), fits = raster(d, track);
  drag = { track, day: +day.starts, units: +day.units, ends: +d.ends, server: d.server, x: event.clientX, ...fits };
  drag.from = drag.to = moment(event);
});
addEventListener("pointermove", (event) => {
  if (!drag || event.pointerType !== "mouse") return;
  drag.to = moment(event);
  drag.moved = drag.moved || Math.abs(event.clientX - drag.x) > 6;
  if (drag.moved) paint();
});
addEventListener("pointercancel", () => {
  drag?.mark?.remove();
  drag = null;
});
addEventListener("dragstart", (event) => { if (drag) event.preventDefault(); });
let tapped = false;
function toForm() {
  tapped = false;
  form.scrollIntoView({ block: "center" });
  form.querySelector("button[value=book]").focus({ preventScroll: true });
}
addEventListener("pointerup", (event) => {
  if (!drag) return;
  const [from, to] = chosen();
  paint();
  form.elements.server.value = drag.server;
  if (drag.course && form.elements.course) form.elements.course.value = drag.course;
  steps();
  form.elements.start.value = local(from);
  form.elements.end.value = local(to);
  form.elements.starts_at.value = from;
  form.elements.ends_at.value = to;
  drag = null;
  // A tap's click comes later and goes to what is below the finger by then: that must not be a button of the form.
  tapped = event.pointerType !== "mouse";
  if (!tapped) toForm();
});
// A pointer has filled the form already; the keyboard follows the link.
addEventListener("click", (event) => {
  if (!form || !event.detail || !event.target.closest?.(".free a[data-starts]")) return;
  event.preventDefault();
  if (tapped) toForm();
});
if (form) for (const name of ["start", "end"]) form.elements[name].addEventListener("input", () => {
  form.elements.starts_at.value = form.elements.ends_at.value = "";
});
