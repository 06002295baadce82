package client;

import engine.v1.RecommendRequest;
import engine.v1.RecommendResponse;
import engine.v1.RecommendationServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** Asks the server at args[0] for what user args[1] wants on surface args[2], and prints one item id a line. */
public final class Main {
  public static void main(String[] args) throws InterruptedException {
    if (args.length != 3) {
      System.err.println("usage: client TARGET USER SURFACE");
      return;
    }
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    try {
      RecommendRequest request =
          RecommendRequest.newBuilder().setUserId(args[1]).setSurface(args[2]).setItemCount(5).build();
      RecommendResponse response =
          RecommendationServiceGrpc.newBlockingStub(channel)
              .withDeadlineAfter(30, TimeUnit.SECONDS)
              .recommend(request);
      response.getItemsList().forEach(item -> System.out.println(item.getItemId()));
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}
