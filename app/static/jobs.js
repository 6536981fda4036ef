// The page of jobs: submits lines as a job, and shows how the jobs of this key, or of this machine, fare.

import { say, write } from "./announce.js";
import { save } from "./download.js";
import { ask, LONGEST_WAIT, RequestError } from "./graphql.js";
import { demand, onChange } from "./key.js";
import { DETECT, nameOf, offered } from "./languages.js";
import { pausable } from "./pause.js";
import { linesOf, submit } from "./submission.js";
import { follow, stands } from "./updates.js";

const FIELDS = `id status source target createdAt expiresAt progress { done total failed } error { message }`;
const JOBS = `query Jobs($first: Int!) { jobs(first: $first) { edges { node { ${FIELDS} } } pageInfo { hasNextPage } } }`;
const CANCEL = `mutation Cancel($id: ID!) { cancelJob(id: $id) { ${FIELDS} } }`;
const RETRY = `mutation Retry($id: ID!) { retryJob(id: $id) { ${FIELDS} } }`;
const DELETE = `mutation Delete($id: ID!) { deleteJob(id: $id) { id } }`;
const UPDATED = `subscription Updated($id: ID!) { jobUpdated(id: $id) { ${FIELDS} } }`;
const STREAMS = 2; // jobs that the page listens to: without HTTP/2, all tabs together have six connections to a service
const PERIOD = 2_000; // milliseconds between two looks at jobs of which one has not ended, and is not listened to
const REST = 10_000; // milliseconds if there is none
const PATIENCE = 10_000; // milliseconds that an answer may take
const PAGE = 20; // jobs; and so many more each time
const MOST = 1_000; // that the API returns
const WORDS = {
  OPEN: "Still being sent",
  QUEUED: "Waiting",
  RUNNING: "Running",
  SUCCEEDED: "Done",
  FAILED: "Done, with errors",
  CANCELLED: "Cancelled",
};
const RETRIABLE = ["FAILED", "CANCELLED"];
const ENDED = ["SUCCEEDED", ...RETRIABLE];

const element = (id) => document.getElementById(id);
const [form, source, target, lines, file, button] = ["submission", "source", "target", "lines", "file", "submit"].map(element);
const [table, template, pause, deletion] = ["jobs", "row", "pause", "deletion"].map(element);
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const number = (value) => value.toLocaleString("en");

const paused = pausable(schedule);
const seen = new Map(); // when a running job was seen first, and how many of its texts were done: by its id
let wanted = PAGE; // jobs
let due = 0; // when the API is asked next: a time in milliseconds
let timer;
let looks = 0;
let heard = []; // the ids of the jobs to listen to

// The list.

async function look() {
  const mine = (looks += 1);
  let wait = REST;
  try {
    const options = { patience: PATIENCE };
    const jobs = await ask(JOBS, { first: wanted }, options, ({ jobs: { edges, pageInfo } }) => {
      const nodes = edges.map((edge) => edge.node);
      if (mine === looks) show(nodes, pageInfo.hasNextPage);
      return nodes;
    });
    demand();
    element("trouble").hidden = true;
    if (mine !== looks) return; // a newer look is on its way
    const [running, waiting] = ["RUNNING", "QUEUED"].map((status) => jobs.filter((job) => job.status === status));
    heard = [...running, ...waiting].slice(0, STREAMS).map((job) => job.id);
    if (jobs.some((job) => !ENDED.includes(job.status) && !stands(job.id))) wait = PERIOD;
  } catch (error) {
    if (mine !== looks) return;
    wait = fail(error, "The list shows what was known last.");
    if (wait === Infinity) heard = []; // the key is of no use
  }
  due = Date.now() + wait;
  schedule();
}

function schedule() {
  clearTimeout(timer);
  const watched = document.visibilityState === "visible" && !paused();
  follow(watched ? heard : [], UPDATED, update, look);
  if (watched && due < Infinity) timer = setTimeout(look, due - Date.now());
}

function update(job) {
  const row = element(`job-${job.id}`);
  if (row) fill(row, job);
  element("updated").textContent = time.format(new Date());
}

// Shows the error, and returns the milliseconds after which to look again.
function fail(error, advice) {
  const message = error instanceof RequestError ? error.message : `The page failed (${error}). Reload it.`;
  write(element("reason"), message);
  write(element("advice"), advice);
  element("trouble").hidden = false;
  return demand(error) ? Infinity : Math.max(REST, Math.min((error.retryAfter ?? 0) * 1000, LONGEST_WAIT));
}

// Rows stay where they are, so that the focus does, too.
function show(jobs, more) {
  const rows = new Map([...table.rows].map((row) => [row.id, row]));
  jobs.forEach((job, index) => {
    const known = rows.get(`job-${job.id}`);
    const row = known ?? newRow(job);
    rows.delete(row.id);
    if (table.rows[index] !== row) table.insertBefore(row, table.rows[index] ?? null);
    if (!known || !stands(job.id)) fill(row, job); // a stream knows more than a list that was on its way
  });
  for (const gone of rows.values()) gone.remove();
  element("none").hidden = jobs.length > 0;
  table.closest("table").tHead.hidden = jobs.length === 0;
  element("older").hidden = !more || wanted >= MOST;
  element("updated").textContent = time.format(new Date());
}

function newRow(job) {
  const row = template.content.cloneNode(true).firstElementChild;
  row.id = `job-${job.id}`;
  for (const [kind, mutation] of [["cancel", CANCEL], ["retry", RETRY]]) {
    row.querySelector(`.${kind}`).addEventListener("click", () => change(row, mutation, job.id));
  }
  row.querySelector(".delete").addEventListener("click", () => remove(row, job.id));
  for (const kind of ["tsv", "ndjson"]) {
    const link = row.querySelector(`.${kind}`);
    link.href = document.body.dataset.download.replace("JOB_ID", job.id).replace("JOB_FORM", kind);
    link.addEventListener("click", (event) => save(event).catch((error) => fail(error, "Nothing was downloaded.")));
  }
  return row;
}

function fill(row, job) {
  const { status, progress } = job;
  const what = `${job.source ? nameOf(job.source) : "Detected"} → ${nameOf(job.target)}`;
  const parts = { what, when: date.format(new Date(job.createdAt)), identity: job.id };
  parts.state = `${WORDS[status] ?? status}: ${number(progress.done)} of ${number(progress.total)} texts`;
  const failed = progress.failed ? `${number(progress.failed)} failed` : "";
  const expires = job.expiresAt ? `deleted on ${date.format(new Date(job.expiresAt))}` : "";
  parts.detail = [left(job), job.error?.message ?? failed, expires].filter(Boolean).join("; ");
  for (const [name, words] of Object.entries(parts)) write(row.querySelector(`.${name}`), words);
  const bar = row.querySelector("progress");
  bar.max = Math.max(1, progress.total);
  bar.value = progress.done;
  bar.setAttribute("aria-label", `Progress of the job ${what}`);
  const [cancel, retry] = [row.querySelector(".cancel"), row.querySelector(".retry")];
  const focused = row.contains(document.activeElement) && document.activeElement.hidden === false;
  cancel.hidden = ENDED.includes(status);
  retry.hidden = !RETRIABLE.includes(status);
  if (focused && document.activeElement.hidden) row.querySelector(".tsv").focus();
}

// In words, how long a running job will take by the pace at which this page has seen it run.
function left({ id, status, progress: { done, total } }) {
  if (status !== "RUNNING") seen.delete(id);
  else if (!seen.has(id)) seen.set(id, { at: Date.now(), done });
  const first = seen.get(id);
  if (!first || done <= first.done) return "";
  const seconds = ((Date.now() - first.at) / 1000 / (done - first.done)) * (total - done);
  if (seconds < 60) return "less than a minute left";
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `about ${minutes} min left` : `about ${Math.round(minutes / 60)} h left`;
}

async function change(row, mutation, id) {
  try {
    await ask(mutation, { id }, { patience: PATIENCE }, (data) => fill(row, Object.values(data)[0]));
    await look();
  } catch (error) {
    fail(error, "The job is as it was.");
  }
}

async function remove(row, id) {
  const [what, when] = ["what", "when"].map((name) => row.querySelector(`.${name}`).textContent);
  if (!(await confirmed(`Delete the job ${what} of ${when}, with its texts and translations?`))) return;
  const neighbour = row.nextElementSibling ?? row.previousElementSibling;
  try {
    await ask(DELETE, { id }, { patience: PATIENCE }, () => null);
  } catch (error) {
    return fail(error, "The job is as it was.");
  }
  row.remove();
  (neighbour?.querySelector(".delete") ?? pause).focus();
  say("The job is deleted.");
  await look();
}

function confirmed(question) {
  write(element("question"), question);
  deletion.returnValue = "keep";
  deletion.showModal();
  const isDeletion = () => deletion.returnValue === "delete";
  return new Promise((resolve) => deletion.addEventListener("close", () => resolve(isDeletion()), { once: true }));
}

// A new job.

function offerLanguages() {
  const [from, to] = [source.value, target.value];
  const sources = [...new Set(offered.map((pair) => pair[0]))];
  offer(source, sources.length > 1 ? [DETECT, ...sources] : sources, from);
  const targets = offered.filter((pair) => source.value === DETECT || pair[0] === source.value).map((pair) => pair[1]);
  offer(target, [...new Set(targets)], to);
}

function offer(select, languages, chosen) {
  const name = (code) => (code === DETECT ? "Detect language" : nameOf(code));
  select.replaceChildren(...languages.map((code) => new Option(name(code), code, false, code === chosen)));
}

async function read() {
  if (!file.files.length) return linesOf(lines.value);
  try {
    return linesOf(new TextDecoder("utf-8", { fatal: true }).decode(await file.files[0].arrayBuffer()));
  } catch {
    throw new RequestError("The file is no text in UTF-8, or cannot be read. Save it as UTF-8 and choose it again.");
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    const texts = await read();
    if (!texts.some((text) => text.trim())) return say("There is nothing to translate: write a text, or choose a file.");
    const languages = { target: target.value, ...(source.value === DETECT ? {} : { source: source.value }) };
    say(`Sending ${number(texts.length)} texts…`);
    await submit(texts, languages, (sent) => say(`Sending: ${number(sent)} of ${number(texts.length)} texts…`));
    lines.value = file.value = "";
    say(`Submitted ${number(texts.length)} texts.`);
    await look();
  } catch (error) {
    say("");
    fail(error, "Nothing was submitted. Your texts are still here.");
  } finally {
    button.setAttribute("aria-disabled", "false");
  }
});
source.addEventListener("change", offerLanguages);
element("more").addEventListener("click", () => {
  wanted = Math.min(MOST, wanted + PAGE);
  look();
});
document.addEventListener("visibilitychange", schedule);
onChange(() => {
  follow([]); // what was listened to with another key
  look();
});
offerLanguages();
look();
