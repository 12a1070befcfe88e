// A chat client with npm `ws`: subscribes, answers the first message of somebody else, waits for a ping of the broker,
// and prints what it saw. Usage: node chat.mjs URL TOKEN
import WebSocket from "ws";

const [url, token] = process.argv.slice(2);
const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } });
const send = (type, payload) => socket.send(JSON.stringify({ type, channel: "room:1", payload }));
let answered = false;
let pinged = false;

// Whatever goes wrong, the test that runs this must not hang.
setTimeout(() => {
  console.error("timed out");
  process.exit(1);
}, 30_000).unref();

socket.on("open", () => {
  console.log("open");
  send("SUBSCRIBE", {});
});

socket.on("ping", () => {
  if (answered && !pinged) {
    pinged = true;
    console.log("ping");
    send("CHAT_MESSAGE", { content: "pinged" });
  }
});

socket.on("message", (data) => {
  const { type, payload } = JSON.parse(data.toString());
  if (type === "SUBSCRIBED") {
    console.log(`SUBSCRIBED online=${payload.online.join(",")}`);
  } else if (type === "CHAT_MESSAGE" && payload.userId !== "node" && !answered) {
    console.log(`CHAT_MESSAGE ${payload.content}`);
    send("CHAT_MESSAGE", { content: `you said: ${payload.content}` });
    answered = true;
  }
});

socket.on("close", (code) => {
  console.log(`close ${code}`);
  process.exit(code === 1012 ? 0 : 1);
});

socket.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
