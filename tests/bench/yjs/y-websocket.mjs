// The server of y-websocket on the `ws` of today, without a store: documents are in memory only. The path is the document's name.

import { setupWSConnection } from "@y/websocket-server/utils";
import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
server.on("connection", setupWSConnection);
server.on("listening", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
