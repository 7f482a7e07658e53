"""Where a SparkSession comes from, and the shape of the machines it runs on."""
