// Calls what sqlc has made of the queries in docs/sql.md.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	_ "github.com/lib/pq"

	"iidq/jobs"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	ctx := context.Background()
	queries := jobs.New(must(sql.Open("postgres", os.Getenv("DATABASE_URL"))))
	id := must(queries.Ask(ctx, jobs.AskParams{
		Type: "verify", ContentHash: os.Args[1], ManifestUri: "ipfs://bafy", RegistryAddress: os.Args[2],
	}))
	must(0, queries.PutOff(ctx, id))
	must(queries.CancelOld(ctx))
	for _, failed := range must(queries.Failed(ctx)) {
		fmt.Println(failed.ID, failed.Error.String, failed.CompletedAt.Time)
	}
	fmt.Println(must(queries.Health(ctx)).Slots)
}
