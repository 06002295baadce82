// Asks the server at the first argument for what a user (second) wants on a surface (third), and prints one item id a
// line.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { RecommendationService } from "./gen/engine/v1/recommendation_pb.js";

const [target, userId, surface] = process.argv.slice(2);
const transport = createGrpcTransport({ baseUrl: `http://${target}` });
const client = createClient(RecommendationService, transport);
const response = await client.recommend({ userId, surface, itemCount: 5 }, { timeoutMs: 30_000 });
for (const item of response.items) {
  console.log(item.itemId);
}
