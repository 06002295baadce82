// Asks the server at the first argument for what a user (second) wants on a surface (third), and prints one item id a
// line.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	enginev1 "personalization-engine/engine/v1"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: client TARGET USER SURFACE")
	}
	if err := recommend(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func recommend(target, user, surface string) error {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request := &enginev1.RecommendRequest{UserId: user, Surface: surface, ItemCount: proto.Int32(5)}
	response, err := enginev1.NewRecommendationServiceClient(connection).Recommend(ctx, request)
	if err != nil {
		return err
	}
	for _, item := range response.Items {
		fmt.Println(item.ItemId)
	}
	return nil
}
