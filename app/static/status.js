// The operators' page: shows the status of the service, and updates it while the page is visible.

import { write } from "./announce.js";
import { ask, LONGEST_WAIT } from "./graphql.js";
import { demand, onChange } from "./key.js";
import { pausable } from "./pause.js";

const QUERY = `
{
  status {
    broker
    deadLetters
    jobWorkers
    models { name warm pairs { source target } queues { depth workers } problem }
    onDemand { models queues { depth workers } }
    workers { name active processed uptime memory gpuMemory models { name version device } }
    errors { code count last requestId }
  }
}`;
const PERIOD = 3_000; // milliseconds
const PATIENCE = 10_000; // milliseconds that an answer may take
const SHOWN = 3; // workers or models that one line names; one more is named too
const OLD = "Below is what was known last.";

const element = (id) => document.getElementById(id);
const list = new Intl.ListFormat("en");
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

const paused = pausable(schedule);
let timer;
let due = 0; // when the API is asked next: a time in milliseconds

async function update() {
  let pause = PERIOD;
  try {
    await ask(QUERY, {}, { patience: PATIENCE }, ({ status }) => show(status));
  } catch (error) {
    pause = fail(error);
  }
  due = Date.now() + pause;
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (visible() && !paused() && due < Infinity) timer = setTimeout(update, due - Date.now());
}

function visible() {
  return document.visibilityState === "visible";
}

// Shows the error, and returns the milliseconds after which to try again.
function fail(error) {
  if (demand(error)) {
    complain(error.message, "The page goes on with a key that lets it see the status.");
    return Infinity;
  }
  const pause = Math.max(PERIOD, Math.min((error.retryAfter ?? 0) * 1000, LONGEST_WAIT));
  const then = `${OLD} The page asks again at ${time.format(Date.now() + pause)}.`;
  complain(error.message, pause > PERIOD && !paused() ? then : undefined);
  return pause;
}

function complain(reason, advice = paused() ? OLD : `${OLD} The page goes on asking every three seconds.`) {
  write(element("reason"), reason);
  write(element("advice"), advice);
  element("trouble").hidden = false;
}

function show(status) {
  demand();
  const away = status.broker === false;
  fill("errors", status.errors.map(errorRow));
  if (!away || element("models").rows.length === 0) fill("models", modelRows(status));
  if (away) return complain("The message broker does not answer. The errors below are those of one web process.");
  fill("workers", status.workers.map(workerRow));
  element("letters").textContent = status.deadLetters ?? "–";
  element("job-workers").textContent = status.jobWorkers ?? "–";
  element("updated").textContent = time.format(new Date());
  element("trouble").hidden = true;
}

// The warm models, then the shared queues of the models on demand, then those of the latter that are in memory or cannot be loaded.
function modelRows({ broker, models, onDemand, workers }) {
  const row = ({ name, warm, pairs, queues, problem }) => {
    const holders = workers.filter((worker) => worker.models.some((model) => model.name === name));
    const languages = pairs.map(({ source, target }) => `${source} → ${target}`).join(", ");
    const where = holders.length ? `in memory of ${some(holders.map((worker) => worker.name))}` : "in no memory";
    const facts = [languages, warm ? "warm" : "on demand", ...(broker ? [where] : [])].join(", ");
    const detail = problem ? `${facts}. It cannot be loaded: ${problem}` : facts;
    return [[name, detail], ...(warm ? loads(queues) : [["–"], [holders.length]])];
  };
  const warm = models.filter((model) => model.warm).map(row);
  if (onDemand === null) return warm;
  const others = models.filter((model) => !model.warm);
  const loaded = others.filter(({ name }) => workers.some((worker) => worker.models.some((each) => each.name === name)));
  const counts = `${loaded.length.toLocaleString("en")} of ${onDemand.models.toLocaleString("en")} in memory`;
  return [...warm, [["On demand", `${counts}; they share their queues`], ...loads(onDemand.queues)], ...others.map(row)];
}

// The number of waiting messages, and of workers that take them, with details if the queues differ.
function loads(queues) {
  if (queues.length === 0) return [["–"], ["–"]];
  const kinds = ["interactive", "bulk", "suspect"];
  const waiting = queues.map(({ depth }, index) => [depth, kinds[index]]).filter(([depth]) => depth > 0);
  const total = waiting.reduce((sum, [depth]) => sum + depth, 0);
  const [interactive, bulk] = queues;
  const other = bulk.workers === interactive.workers ? "" : `bulk: ${bulk.workers}`;
  return [[total, waiting.map((each) => each.join(" ")).join(", ")], [interactive.workers, other]];
}

function some(names) {
  const rest = names.length - SHOWN;
  return list.format(rest > 1 ? [...names.slice(0, SHOWN), `${rest} more`] : names);
}

function workerRow({ name, active, processed, uptime, memory, gpuMemory, models }) {
  const loaded = some(models.map((model) => `${model.name} (${model.version}) on ${model.device}`));
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

// Fills a table in place, so that a selection stays in cells that do not change. A cell is a line and perhaps a detail.
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
  element("reason").textContent = ""; // so that the next message is announced, even if it is the same
  update();
});
update();
