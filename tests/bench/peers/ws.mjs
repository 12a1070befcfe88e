// A room server on `ws`. `GET /?room=NAME` joins, every message goes to all members as it is; `GET /echo` sends it back.

import { WebSocket, WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });

server.on("connection", (socket, request) => {
  const url = new URL(request.url, "http://127.0.0.1");
  socket.on("error", () => socket.terminate());
  if (url.pathname === "/echo") {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
    return;
  }
  const name = url.searchParams.get("room") ?? "";
  if (!rooms.has(name)) rooms.set(name, new Set());
  const room = rooms.get(name);
  room.add(socket);
  socket.on("message", (data, isBinary) => {
    for (const member of room) {
      if (member.readyState === WebSocket.OPEN) member.send(data, { binary: isBinary });
    }
  });
  socket.on("close", () => {
    room.delete(socket);
    if (room.size === 0) rooms.delete(name);
  });
});

server.on("listening", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
