// Listens to a subscription of the API, over server-sent events. (The browser's EventSource cannot send an API key.)

import { post } from "./graphql.js";

const SILENCE = 30_000; // milliseconds after which a stream counts as broken; the service sends a comment every 12 s

// Calls `told` with the `data` of each result, and returns once there are no more. Throws if the stream breaks, if its
// answer is another, or once `request`, an AbortController, has been aborted.
export async function subscribe(query, variables, request, told) {
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => request.abort(), SILENCE);
  };
  try {
    wait();
    const response = await post(query, variables, request.signal, { Accept: "text/event-stream" });
    const [reader, decoder] = [response.body.getReader(), new TextDecoder()];
    for (let unread = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) throw new Error("The stream has no end.");
      wait();
      const events = (unread + decoder.decode(value, { stream: true })).split("\n\n");
      unread = events.pop();
      for (const event of events) {
        if (event.startsWith("event: complete")) return;
        const data = /^data: (.*)$/m.exec(event)?.[1];
        if (data) told(JSON.parse(data).data);
      }
    }
  } finally {
    clearTimeout(timer);
    request.abort(); // the connection is free for others
  }
}
