// The translator page. A text goes to the API and nowhere else: not into the address, not into any storage.

import { detect } from "./detect.js";
import { ask, LONGEST_WAIT, RequestError } from "./graphql.js";
import { demand, onChange } from "./key.js";

const MUTATION = `
mutation Translate($input: TranslateInput!) {
  translate(input: $input) {
    requestId
    via
    translations { text error { code message } sentences { text score flags } }
  }
}`;
const LANGUAGES = "{ languages { source target available } }";
const PATIENCE = 10_000; // milliseconds that an answer with the languages may take
const PAUSE = 350; // milliseconds without a keystroke after which a text is sent
const RETRIES = 5; // automatic ones, after doubling pauses of half a minute in all, or after those that the API asks for
// A text has far more time than a translation takes: a timeout means that no worker took it.
const TRANSIENT = ["RATE_LIMITED", "OVERLOADED", "UNAVAILABLE", "TIMEOUT", "UNREACHABLE"];
const TIMEOUT = 10; // seconds for a short text
const GRACE = 5; // more seconds, in which the service would report the timeout
const CHARACTERS_PER_SECOND = 200; // a longer text has more time
// Mean log-probability per token, of each model, below which a sentence deserves a second look (docs/page.md).
const LOW_SCORE = -0.8;
const FLAGS = {
  REPETITION: "The model began to repeat itself here. Something may be missing, or said twice.",
  UNKNOWN_TOKENS: "The sentence has characters that the model does not know. They may be missing.",
  SPLIT: "The sentence was translated in parts: it was too long, or would have lost a placeholder.",
  TRUNCATED: "The translation reached its length limit. The end may be missing.",
  NUMBER_MISMATCH: "A number of the sentence is missing or is not the same.",
  SOURCE_KEPT: "The sentence was not translated, because a placeholder would have been lost.",
};
const UNSURE = "The model was unsure of this sentence. It may be wrong.";
const PAIR = "tolk.pair"; // in the local storage
const DETECT = "detect"; // instead of a language that the texts are in

const { limit, maxTimeout } = document.body.dataset;
const LIMIT = Number(limit);
const MAX_TIMEOUT = Number(maxTimeout);
const element = (id) => document.getElementById(id);
const [source, target, swap, oneWay, unserved] = ["source", "target", "swap", "one-way", "unserved"].map(element);
const [text, length, clear] = ["text", "length", "clear"].map(element);
const [output, progress, outcome, copy] = ["output", "progress", "outcome", "copy"].map(element);
const [trouble, reason, plan, trace] = ["trouble", "reason", "plan", "trace"].map(element);
const [again, outdated, through] = ["again", "outdated", "through"].map(element);
const names = new Intl.DisplayNames("en", { type: "language", fallback: "code" });
const list = new Intl.ListFormat("en");
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short" });

let pairs = JSON.parse(document.body.dataset.pairs); // of languages, and whether workers take them
let detected = null; // the language that was found in the text
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
  const sources = [...new Set(pairs.map((pair) => pair[0]))];
  const choices = sources.length > 1 ? [DETECT, ...sources] : sources;
  if (!sources.includes(detected)) detected = null;
  offer(source, choices, choices.includes(wanted) ? wanted : sources[0]);
  const from = known();
  const targets = [...new Set(pairs.filter((pair) => !from || pair[0] === from).map((pair) => pair[1]))];
  offer(target, targets, targets.includes(to) ? to : targets[0]);
  text.lang = from ?? "";
  unserved.hidden = !from || find(from, target.value)[2];
  const back = find(target.value, from);
  swap.ariaDisabled = String(!back);
  oneWay.textContent = back ? "" : `There is no model from ${name(target.value)} to ${name(from)}.`;
  if (!from) oneWay.textContent = "Which language the text is in is not known yet.";
  swap.title = oneWay.textContent || "Swap the languages";
}

// The language of the text, if it is known.
function known() {
  return source.value === DETECT ? detected : source.value;
}

function find(from, to) {
  return pairs.find((pair) => pair[0] === from && pair[1] === to);
}

// Models come and go while the page stays open.
async function follow() {
  const before = [source.value, target.value];
  try {
    const { languages } = await ask(LANGUAGES, {}, AbortSignal.timeout(PATIENCE));
    pairs = languages.map((each) => [each.source, each.target, each.available]);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    return; // the next translation will show the error
  }
  choose(source.value, target.value);
  if (String([source.value, target.value]) !== String(before)) change();
}

function offer(select, languages, chosen) {
  select.replaceChildren(...languages.map((code) => new Option(name(code), code, false, code === chosen)));
}

function name(code) {
  if (code === DETECT) return detected ? `${name(detected)} (detected)` : "Detect language";
  try {
    return names.of(code);
  } catch {
    return code; // not a language code, but a name from models.toml
  }
}

function remember() {
  try {
    localStorage.setItem(PAIR, JSON.stringify([source.value, target.value]));
  } catch {
    // The browser does not allow storage. The first pair will be shown next time.
  }
}

function remembered() {
  try {
    const [from, to] = JSON.parse(localStorage.getItem(PAIR));
    return from === DETECT ? [from, to] : find(from, to);
  } catch {
    return undefined; // nothing is stored, or nothing valid
  }
}

// From a text to its translation.

function change() {
  halt();
  failures = 0;
  const excess = measure();
  clear.disabled = !text.value;
  current = false;
  if (text.value.trim() === "") {
    show("", [], []);
    say("");
  } else if (excess > 0) {
    trouble.hidden = true;
    mark(true);
    say(`The text is ${excess.toLocaleString("en")} characters too long. Shorten it, or translate it in parts.`);
  } else {
    const held = earliest > Date.now();
    if (refused || held) trouble.hidden = false;
    mark(!trouble.hidden);
    say("");
    if (refused) return;
    const words = schedule(PAUSE);
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
  const characters = LIMIT + measure();
  if (text.value.trim() === "" || characters > LIMIT) return;
  const { signal } = (request = new AbortController());
  const timeout = Math.min(MAX_TIMEOUT, TIMEOUT + characters / CHARACTERS_PER_SECOND);
  const patient = AbortSignal.any([signal, AbortSignal.timeout((timeout + GRACE) * 1000)]);
  progress.hidden = false;
  try {
    if (source.value === DETECT) await identify(patient);
    const to = target.value;
    const input = { texts: [text.value], source: known(), target: to, timeout };
    const { requestId, via, translations } = (await ask(MUTATION, { input }, patient)).translate;
    const [{ text: translation, sentences, error }] = translations;
    if (error) throw new RequestError(error.message, { ...error, requestId });
    current = true;
    failures = 0;
    earliest = 0;
    refused = demand();
    unserved.hidden = true;
    output.lang = to;
    const count = show(translation, sentences, via);
    const check = ["", " Check the underlined sentence."][count] ?? ` Check the ${count} underlined sentences.`;
    say(`Translated${source.value === DETECT ? ` from ${name(known())}` : ""}.${check}`);
  } catch (error) {
    if (signal.aborted) return; // a newer text is on its way
    if (!(error instanceof RequestError)) throw error;
    fail(error);
  }
  progress.hidden = true;
}

// Finds out which language the text is in, and changes the target if nothing leads there.
async function identify(signal) {
  const { language, served } = await detect(text.value, detected, signal);
  signal.throwIfAborted(); // another language may be chosen by now
  detected = served ? (language ?? pairs[0][0]) : null; // a text without letters is the same in any language
  choose(DETECT, target.value);
  if (served) return;
  const known = language === "und" ? "in a language that" : `in ${name(language)}, which`;
  throw new RequestError(`The text seems to be ${known} cannot be translated here. If it is not, choose its language.`);
}

// Failures.

function fail(error) {
  refused = demand(error);
  if (error.code === "UNKNOWN_MODEL") follow();
  earliest = Date.now() + (error.retryAfter ?? 0) * 1000;
  const byItself = TRANSIENT.includes(error.code) && failures < RETRIES;
  const words = byItself ? schedule(2 ** failures * 1000) : "";
  failures += 1;
  reason.textContent = error.message;
  write(plan, refused ? "It is sent again with the key that you enter." : words);
  trace.textContent = error.requestId ? `Request ${error.requestId}.` : "";
  again.hidden = refused;
  trouble.hidden = false;
  mark(true);
  say("");
}

// If the page says so already, it is not announced again.
function write(where, words) {
  if (where.textContent !== words) where.textContent = words;
}

// An older translation stays, and looks outdated. Words say so if no newer one is about to come.
function mark(inWords) {
  const old = shown !== "" && !current;
  output.classList.toggle("outdated", old);
  outdated.hidden = !(old && inWords);
}

// What is on the page.

// Returns how many sentences are marked.
function show(translation, sentences, via) {
  shown = translation;
  output.replaceChildren(...annotate(translation, sentences, LOW_SCORE * (via.length + 1)));
  through.textContent = via.length ? `By way of ${list.format(via.map(name))}: no model translates directly.` : "";
  copy.disabled = !shown;
  if (trouble.contains(document.activeElement)) text.focus();
  trouble.hidden = true;
  mark(false);
  return output.querySelectorAll("mark").length;
}

// Shows the translation, and marks each sentence that a reader should check. The sentences occur in it in order.
function annotate(translation, sentences, low) {
  const parts = [];
  let written = 0;
  let cursor = 0;
  for (const sentence of sentences) {
    const start = translation.indexOf(sentence.text, cursor);
    if (start < 0 || !sentence.text) continue;
    cursor = start + sentence.text.length;
    const doubts = sentence.flags.map((flag) => FLAGS[flag]);
    if (sentence.score < low) doubts.push(UNSURE);
    if (doubts.length === 0) continue;
    parts.push(translation.slice(written, start), ...doubtful(sentence.text, doubts, `doubt-${parts.length}`));
    written = cursor;
  }
  return [...parts, translation.slice(written)];
}

function doubtful(sentence, doubts, id) {
  const marked = document.createElement("mark");
  marked.textContent = sentence;
  marked.tabIndex = 0;
  marked.setAttribute("aria-describedby", id);
  const why = document.createElement("span");
  why.id = id;
  why.role = "tooltip";
  why.lang = "en";
  why.dir = "ltr";
  why.textContent = doubts.join(" ");
  return [marked, why];
}

// Measures the text as the server does, in Unicode code points, and shows by how many it exceeds the limit.
function measure() {
  const characters = Array.from(text.value).length;
  length.textContent = `${characters.toLocaleString("en")} / ${LIMIT.toLocaleString("en")}`;
  text.ariaInvalid = String(characters > LIMIT);
  if (!CSS.supports("field-sizing", "content")) {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight}px`;
  }
  return characters - LIMIT;
}

function say(words) {
  outcome.textContent = words;
}

// What people do.

text.addEventListener("input", change);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translate();
  }
});
for (const select of [source, target]) {
  select.addEventListener("change", () => {
    choose(source.value, target.value);
    remember();
    change();
  });
}
swap.addEventListener("click", () => {
  if (oneWay.textContent) return say(oneWay.textContent);
  if (current && shown) text.value = shown;
  choose(target.value, known());
  remember();
  change();
});
clear.addEventListener("click", () => {
  text.value = "";
  detected = null;
  choose(source.value, target.value);
  change();
  text.focus();
});
again.addEventListener("click", () => {
  failures = 0;
  text.focus();
  translate();
});
copy.addEventListener("click", async () => {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(shown);
    } catch {
      return say("The browser did not allow it. Select the translation and copy it.");
    }
  } else {
    // Browsers offer the clipboard only to pages over HTTPS or from this machine. Other pages use the older way.
    getSelection().selectAllChildren(output);
    document.execCommand("copy");
  }
  say("Copied.");
});
onChange(() => {
  failures = 0;
  earliest = 0;
  if (!current) translate();
});
addEventListener("resize", measure);
for (const { dataset, firstChild } of document.querySelectorAll("[data-note]")) {
  const directions = dataset.languages.matchAll(/(\S+) (\S+)/g);
  const named = Array.from(directions, ([, from, to]) => `${name(from)} → ${name(to)}`);
  firstChild.data = `${named.join(", ")}: ${dataset.note}`;
}
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") follow();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") output.classList.add("hushed");
});
for (const kind of ["pointerover", "focusin"]) {
  output.addEventListener(kind, () => output.classList.remove("hushed"));
}

choose(...(remembered() ?? pairs[0]));
measure();
