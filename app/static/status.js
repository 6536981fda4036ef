// The operators' page: asks how the service is while somebody looks.

import { ask, LONGEST_WAIT, RequestError } from "./graphql.js";
import { demand, onChange } from "./key.js";

const QUERY = `
{
  status {
    broker
    deadLetters
    models { name pairs { source target } queues { name depth workers } }
    workers { name active processed uptime memory gpuMemory models { name version device } }
    errors { code count last requestId }
  }
}`;
const PERIOD = 3_000; // milliseconds
const PATIENCE = 10_000; // milliseconds that an answer may take
const OLD = "Below is what was known last.";

const element = (id) => document.getElementById(id);
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

let timer;
let due = 0; // when the API is asked next: a time in milliseconds

async function update() {
  let pause = PERIOD;
  try {
    show((await ask(QUERY, {}, AbortSignal.timeout(PATIENCE))).status);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    pause = fail(error);
  }
  due = Date.now() + pause;
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (visible() && due < Infinity) timer = setTimeout(update, due - Date.now());
}

function visible() {
  return document.visibilityState === "visible";
}

// Says why, and returns after how many milliseconds another try makes sense.
function fail(error) {
  if (demand(error)) {
    complain(error.message, "The page goes on with a key that lets it see the status.");
    return Infinity;
  }
  const pause = Math.max(PERIOD, Math.min((error.retryAfter ?? 0) * 1000, LONGEST_WAIT));
  const then = `${OLD} The page asks again at ${time.format(Date.now() + pause)}.`;
  complain(error.message, pause > PERIOD ? then : undefined);
  return pause;
}

// Says it once: what stands there already is not announced again.
function complain(reason, advice = `${OLD} The page goes on asking every three seconds.`) {
  for (const [id, words] of Object.entries({ reason, advice })) {
    if (element(id).textContent !== words) element(id).textContent = words;
  }
  element("trouble").hidden = false;
}

function show(status) {
  demand();
  const away = status.broker === false;
  fill("errors", status.errors.map(errorRow));
  if (!away || element("models").rows.length === 0) fill("models", status.models.flatMap(queueRows));
  if (away) return complain("The message broker does not answer. The errors below are those of one web process.");
  fill("workers", status.workers.map(workerRow));
  element("letters").textContent = status.deadLetters ?? "–";
  element("updated").textContent = time.format(new Date());
  element("trouble").hidden = true;
}

function queueRows({ name, pairs, queues }) {
  const languages = pairs.map(({ source, target }) => `${source} → ${target}`).join(", ");
  if (queues.length === 0) return [[[name, languages], ["–"], ["–"]]];
  return queues.map((queue) => [[name, `${languages}, queue ${queue.name}`], [queue.depth], [queue.workers]]);
}

function workerRow({ name, active, processed, uptime, memory, gpuMemory, models }) {
  const loaded = models.map((model) => `${model.name} (${model.version}) on ${model.device}`).join(", ");
  const onGpu = gpuMemory === null ? "" : `GPU ${size(gpuMemory)}`;
  return [[name, loaded], [active], [processed], [size(memory), onGpu], [duration(uptime)]];
}

function errorRow({ code, count, last, requestId }) {
  return [[code, requestId], [count], [time.format(new Date(last))]];
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  return minutes < 1440 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} d`;
}

function size(bytes) {
  if (bytes === null) return "–";
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

// Fills a table in place, so that a selection outlives what did not change. A cell is a line, and perhaps a detail.
function fill(id, rows) {
  const body = element(id);
  const columns = body.closest("table").tHead.rows[0].cells;
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, index) => {
    const row = body.rows[index] ?? newRow(body, columns);
    cells.forEach(([line, detail = ""], column) => {
      const [first, second] = row.cells[column].children;
      if (first.textContent !== String(line)) first.textContent = line;
      if (second.textContent !== detail) second.textContent = detail;
    });
  });
  body.closest("table").nextElementSibling.hidden = rows.length > 0;
  body.closest("table").tHead.hidden = rows.length === 0;
}

function newRow(body, columns) {
  const row = body.insertRow();
  for (const [index, column] of [...columns].entries()) {
    const cell = document.createElement(index === 0 ? "th" : "td");
    if (index === 0) cell.scope = "row";
    cell.className = column.className;
    cell.append(document.createElement("span"), document.createElement("small"));
    row.append(cell);
  }
  return row;
}

document.addEventListener("visibilitychange", schedule);
onChange(() => {
  element("reason").textContent = ""; // what is said next is news, even where it is the same
  update();
});
update();
