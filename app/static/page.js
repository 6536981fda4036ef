// The translator page. A text goes to the API and nowhere else: not into the address, not into any lasting storage.

import { say, write } from "./announce.js";
import { copyText } from "./clipboard.js";
import { detect } from "./detect.js";
import { annotate, hushOnEscape } from "./doubts.js";
import * as draft from "./draft.js";
import { keepClear } from "./edges.js";
import { isComposing, measure, onInput, put } from "./field.js";
import { LONGEST_WAIT, RequestError } from "./graphql.js";
import { demand, onChange } from "./key.js";
import { DETECT, find, nameNotes, nameOf, offered, refresh, remember, remembered } from "./languages.js";
import * as paragraphs from "./paragraphs.js";

const PAUSE = 350; // milliseconds without a keystroke after which a text is sent
const QUIET = 1_500; // milliseconds without a keystroke after which a screen reader may announce how a text fares
const AT_ONCE = ["insertFromPaste", "insertFromDrop", "historyUndo", "historyRedo"]; // what nobody goes on typing
const RETRIES = 5; // automatic ones, after doubling pauses of half a minute in all, or after those that the API asks for
// A text has far more time than a translation takes: a timeout means that no worker took it.
const TRANSIENT = ["RATE_LIMITED", "OVERLOADED", "UNAVAILABLE", "TIMEOUT", "UNREACHABLE"];

const { limit, maxTexts, maxTimeout } = document.body.dataset;
const LIMIT = Number(limit);
const LIMITS = { texts: Number(maxTexts), timeout: Number(maxTimeout) };
const element = (id) => document.getElementById(id);
const [source, target, swap, oneWay, unserved] = ["source", "target", "swap", "one-way", "unserved"].map(element);
const [text, clear, undo] = ["text", "clear", "undo"].map(element);
const [output, progress, outdated, through, copy] = ["output", "progress", "outdated", "through", "copy"].map(element);
const [trouble, reason, plan, trace, again] = ["trouble", "reason", "plan", "trace", "again"].map(element);
const list = new Intl.ListFormat("en");
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short" });

let detected = null; // the language that was found in the text
let replaced = null; // what Clear or Swap replaced: the text and its languages, until somebody types
let shown = ""; // the translation on the page
let current = false; // whether `shown` is the translation of the text on the page
let request = new AbortController(); // the newest one
let timer; // until the next one
let failures = 0; // since the last success or change
let refused = false; // for lack of a valid key: nothing is sent automatically until there is another
let earliest = 0; // when the API may be asked again: a time in milliseconds, which typing does not shorten

// The languages.

// The wanted pair, or the one most like it. Where there is a choice of languages, they may be detected.
function choose(wanted, to) {
  const sources = [...new Set(offered.map((pair) => pair[0]))];
  const choices = sources.length > 1 ? [DETECT, ...sources] : sources;
  if (!sources.includes(detected)) detected = null;
  offer(source, choices, choices.includes(wanted) ? wanted : sources[0]);
  const from = known();
  const targets = [...new Set(offered.filter((pair) => !from || pair[0] === from).map((pair) => pair[1]))];
  offer(target, targets, targets.includes(to) ? to : targets[0]);
  text.lang = from ?? "";
  tellService(!from || find(from, target.value)[2]);
  const back = find(target.value, from);
  swap.setAttribute("aria-disabled", !back);
  oneWay.textContent = back ? "" : `There is no model from ${name(target.value)} to ${name(from)}.`;
  if (!from) oneWay.textContent = "Which language the text is in is not known yet.";
  swap.title = oneWay.textContent || "Swap the languages";
}

function tellService(served) {
  write(unserved, served ? "" : "No worker translates these languages at the moment. A text may have to wait for one.");
}

// The language of the text, if it is known.
function known() {
  return source.value === DETECT ? detected : source.value;
}

async function follow() {
  const before = String([source.value, target.value]);
  try {
    await refresh();
  } catch {
    return; // the next translation will show the error
  }
  choose(source.value, target.value);
  if (String([source.value, target.value]) !== before) change(PAUSE);
}

function offer(select, languages, chosen) {
  select.replaceChildren(...languages.map((code) => new Option(name(code), code, false, code === chosen)));
}

function name(code) {
  if (code !== DETECT) return nameOf(code);
  return detected ? `${nameOf(detected)} (detected)` : "Detect language";
}

// From a text to its translation.

// Translates what is on the page now, after a pause in milliseconds.
function change(pause) {
  halt();
  failures = 0;
  const excess = measure(LIMIT) - LIMIT;
  draft.keep(text.value);
  clear.disabled = !text.value;
  current = false;
  say("");
  if (text.value.trim() === "") {
    show([]);
  } else if (excess > 0) {
    trouble.hidden = true;
    mark(true);
    say(`The text is ${excess.toLocaleString("en")} characters too long. Shorten it, or translate it in parts.`, QUIET);
  } else {
    const held = earliest > Date.now();
    if (refused || held) trouble.hidden = false;
    mark(!trouble.hidden);
    if (refused || isComposing()) return;
    const words = schedule(pause);
    if (held) write(plan, words);
  }
}

// Sends the text after a pause in milliseconds, or later if the API asks for it. Returns in words when.
function schedule(pause) {
  const wait = Math.max(pause, earliest - Date.now());
  const then = Date.now() + wait;
  if (wait > LONGEST_WAIT) return `Another try makes sense from ${date.format(then)} on, or with a shorter text.`;
  timer = setTimeout(translate, wait);
  return `The page tries again at ${time.format(then)}.`;
}

function halt() {
  clearTimeout(timer);
  request.abort();
  progress.hidden = true;
}

async function translate() {
  halt();
  if (isComposing() || text.value.trim() === "" || measure(LIMIT) > LIMIT) return;
  const { signal } = (request = new AbortController());
  progress.hidden = false;
  try {
    if (source.value === DETECT) await identify(signal);
    const pair = { source: known(), target: target.value };
    const translations = await paragraphs.translate(text.value, pair, LIMITS, signal);
    if (signal.aborted) return;
    succeed(translations, pair.target);
  } catch (error) {
    if (signal.aborted) return; // a newer text is on its way
    fail(error);
  }
  progress.hidden = true;
}

// Finds out which language the text is in, and changes the target if nothing leads there.
async function identify(signal) {
  const { language, served } = await detect(text.value, detected, signal);
  if (signal.aborted) throw new Error("Another language, or another text, was chosen by now.");
  detected = served ? (language ?? offered[0][0]) : null; // a text without letters is the same in any language
  choose(DETECT, target.value);
  if (served) return;
  const known = language === "und" ? "in a language that" : `in ${name(language)}, which`;
  throw new RequestError(`The text seems to be ${known} cannot be translated here. If it is not, choose its language.`);
}

function succeed(translations, to) {
  current = true;
  failures = 0;
  earliest = 0;
  refused = demand();
  tellService(true);
  output.lang = to;
  const marked = show(translations);
  const check = ["", " Check the underlined sentence."][marked] ?? ` Check the ${marked} underlined sentences.`;
  say(`Translated${source.value === DETECT ? ` from ${name(known())}` : ""}.${check}`, QUIET);
}

function fail(error) {
  refused = demand(error);
  if (error.code === "UNKNOWN_MODEL") follow();
  earliest = Date.now() + (error.retryAfter ?? 0) * 1000;
  const byItself = TRANSIENT.includes(error.code) && failures < RETRIES;
  const words = byItself ? schedule(2 ** failures * 1000) : "";
  failures += 1;
  write(reason, error instanceof RequestError ? error.message : `The page failed (${error}). Reload it.`);
  write(plan, refused ? "It is sent again with the key that you enter." : words);
  write(trace, error.requestId ? `Request ${error.requestId}.` : "");
  again.hidden = refused;
  trouble.hidden = false;
  mark(true);
  say("");
}

// What is on the page.

// An older translation stays, and looks outdated. Words say so if no newer one is about to come.
function mark(inWords) {
  const old = shown !== "" && !current;
  output.classList.toggle("outdated", old);
  outdated.hidden = !(old && inWords);
}

// Shows the paragraphs of a translation. Returns how many sentences are marked.
function show(translations) {
  shown = translations.map((each) => each.text).join("\n");
  output.replaceChildren(...annotate(translations));
  const via = [...new Set(translations.flatMap((each) => each.via))];
  write(through, via.length ? `By way of ${list.format(via.map(name))}: no model translates directly.` : "");
  copy.disabled = !shown;
  if (trouble.contains(document.activeElement)) text.focus();
  trouble.hidden = true;
  mark(false);
  return output.querySelectorAll("mark").length;
}

// What people do.

// Puts another text in the place of the present one, and offers to undo that, and a change of the languages too.
function replace(value, ...languages) {
  const before = { value: text.value, languages: [source.value, target.value] };
  const { activeElement } = document;
  put(value);
  if (languages.length) turn(...languages);
  replaced = before;
  undo.hidden = false;
  activeElement.focus();
  change(0);
}

// Changes the languages, and remembers them.
function turn(from, to) {
  choose(from, to);
  remember(source.value, target.value);
}

// Forgets what was replaced; `back` brings its languages back.
function settle(back) {
  if (back) turn(...replaced.languages);
  replaced = null;
  undo.hidden = true;
}

onInput((kind) => {
  if (replaced) settle(kind === "historyUndo" && text.value === replaced.value);
  change(AT_ONCE.includes(kind) ? 0 : PAUSE);
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
    event.preventDefault();
    if (progress.hidden) translate(); // otherwise this text is on its way
  }
});
for (const select of [source, target]) {
  select.addEventListener("change", () => {
    turn(source.value, target.value);
    change(0);
  });
}
swap.addEventListener("click", () => {
  if (oneWay.textContent) return say(oneWay.textContent);
  const languages = [target.value, known()];
  if (current && shown) return replace(shown, ...languages);
  turn(...languages);
  change(0);
});
clear.addEventListener("click", () => {
  detected = null;
  replace("", source.value, target.value);
  text.focus();
});
undo.addEventListener("click", () => {
  const { value } = replaced;
  settle(true);
  put(value);
  text.focus();
  change(0);
});
again.addEventListener("click", () => {
  failures = 0;
  text.focus();
  translate();
});
copy.addEventListener("click", async () => {
  const what = current ? "Copied." : "Copied the translation of an earlier text.";
  say((await copyText(shown, output)) ? what : "The browser did not allow it. Select the translation and copy it.");
});
onChange(() => {
  failures = 0;
  earliest = 0;
  if (!current) translate();
});
addEventListener("resize", () => measure(LIMIT));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") follow();
});

keepClear();
hushOnEscape(output);
nameNotes();
choose(...remembered());
text.value = draft.kept();
change(0);
