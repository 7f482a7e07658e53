# Read by the daemons, and by spark-submit, where SPARK_CONF_DIR names this folder. On each machine, from a Spark 4.0 with
# the folder sbin (the one of pip has none; there `spark-class org.apache.spark.deploy.master.Master` does the same):
#   export SPARK_CONF_DIR=/path/to/cluster/standalone
#   $SPARK_HOME/sbin/start-master.sh                        one machine; prints spark://MASTER:7077 into its log
#   $SPARK_HOME/sbin/start-worker.sh spark://MASTER:7077    every other machine
#   $SPARK_HOME/sbin/stop-worker.sh; $SPARK_HOME/sbin/stop-master.sh
# A worker that is stopped loses its running tasks, which run again elsewhere; a run resumes by the same command.
# What the environment has already set wins.

# Half of the machine for heaps. The other half is for the Python workers with the models, which a standalone cluster
# does not count: with Spark's own default, all but 1 GB, the kernel would kill them.
half_mb=$(awk '/^MemTotal:/ {print int($2 / 2048)}' /proc/meminfo)
export SPARK_WORKER_MEMORY="${SPARK_WORKER_MEMORY:-${half_mb}m}"

# A machine with GPUs: export MKDM_WORKER_GPUS=8 before start-worker.sh. The worker then deals them out to executors, and
# udfs/scoring.py shows each task its own alone.
worker_opts="-Dspark.worker.cleanup.enabled=true" # removes JARs and logs of applications that ended a week ago
if [[ -n ${MKDM_WORKER_GPUS:-} ]]; then
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    worker_opts+=" -Dspark.worker.resource.gpu.amount=$MKDM_WORKER_GPUS"
    worker_opts+=" -Dspark.worker.resource.gpu.discoveryScript=$here/../shapes/gpus.sh"
fi
export SPARK_WORKER_OPTS="$worker_opts ${SPARK_WORKER_OPTS:-}"

# Fast local disks for shuffles, joined by commas; Spark's default is /tmp.
#export SPARK_LOCAL_DIRS=/disk1/spark,/disk2/spark
