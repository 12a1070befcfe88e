// A room server on socket.io. `join` joins a room, `publish` goes to all its members, `echo` comes back.

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
// The measurement does not answer socket.io's own pings; it is over before the first.
const io = new Server(http, { transports: ["websocket"], pingInterval: 600_000, perMessageDeflate: false });

io.on("connection", (socket) => {
  let room;
  socket.on("join", (name) => {
    room = name;
    socket.join(name);
    socket.emit("joined", name);
  });
  socket.on("publish", (text) => io.to(room).emit("publish", text));
  socket.on("echo", (text) => socket.emit("echo", text));
});

http.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${http.address().port}`));
