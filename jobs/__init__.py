"""The Spark jobs, one file each: `main(argv)` → `run(spark, config)` → `transform(df, config)`."""
