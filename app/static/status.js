// The operators' page: asks how the service is while somebody looks.

import { ask, RequestError } from "./graphql.js";

const QUERY = `
{
  status {
    broker
    deadLetters
    models { name pairs { source target } queues { name depth workers } }
    workers { name active processed uptime models { name version device } }
    errors { code count last requestId }
  }
}`;
const PERIOD = 3_000; // milliseconds
const PATIENCE = 10_000; // milliseconds that an answer may take

const element = (id) => document.getElementById(id);
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

let timer;

async function update() {
  try {
    show((await ask(QUERY, {}, AbortSignal.timeout(PATIENCE))).status);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    complain(error.message);
  }
  clearTimeout(timer);
  if (visible()) timer = setTimeout(update, PERIOD);
}

function visible() {
  return document.visibilityState === "visible";
}

// Says it once: a reason that stands there already is not announced again.
function complain(reason) {
  if (element("reason").textContent !== reason) element("reason").textContent = reason;
  element("trouble").hidden = false;
}

function show(status) {
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

function workerRow({ name, active, processed, uptime, models }) {
  const loaded = models.map((model) => `${model.name} (${model.version}) on ${model.device}`).join(", ");
  return [[name, loaded], [active], [processed], [duration(uptime)]];
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

document.addEventListener("visibilitychange", () => (visible() ? update() : clearTimeout(timer)));
update();
