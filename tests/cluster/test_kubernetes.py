"""The pods that Spark asks a stand-in for the API server for, and all YAML against the classes of Spark's client."""

import re
import subprocess

import pytest
import yaml
from api_server import ApiServer
from submitting import CLUSTER, ROOT, assert_taken, properties, said, submit, submit_command

FOLDER = CLUSTER / "kubernetes"
KINDS = {
    "Namespace": "",
    "ServiceAccount": "",
    "PersistentVolumeClaim": "",
    "Pod": "",
    "Role": "rbac.",
    "RoleBinding": "rbac.",
}
NO_WATCH = ["--conf", "spark.kubernetes.executor.enableApiWatcher=false"]


def unknown_keys(jvm, node, java_type: str, where: str) -> list[str]:
    """Keys of a YAML node that the API has not: fabric8's classes have a field for each one that it has."""
    inner = re.fullmatch(r"java\.util\.(?:List|Map)<(?:.*, )?(.+)>", java_type)
    if inner and isinstance(node, dict | list):
        children = list(node.items() if isinstance(node, dict) else enumerate(node))
        return [bad for key, child in children for bad in unknown_keys(jvm, child, inner[1], f"{where}.{key}")]
    if not java_type.startswith("io.fabric8.") or not isinstance(node, dict):
        return [where] if isinstance(node, dict | list) else []
    fields = {
        field.getName(): field.getGenericType().toString().removeprefix("class ")
        for field in jvm.java.lang.Class.forName(java_type).getDeclaredFields()
    }
    bad = [f"{where}.{key}" for key in node if key not in fields]
    for key in node.keys() & fields.keys():
        bad += unknown_keys(jvm, node[key], fields[key], f"{where}.{key}")
    return bad


@pytest.mark.parametrize("file", ["namespace.yaml", "driver.yaml", "executor.yaml"])
def test_yaml_has_only_keys_that_the_api_has(spark, file):
    jvm = spark._jvm
    for document in yaml.safe_load_all((FOLDER / file).read_text()):
        package = f"io.fabric8.kubernetes.api.model.{KINDS[document['kind']]}"
        assert unknown_keys(jvm, document, package + document["kind"], document["kind"]) == []
        parsed = jvm.io.fabric8.kubernetes.client.utils.Serialization.unmarshal(
            yaml.safe_dump(document), jvm.java.lang.Class.forName(package + document["kind"])
        )  # which refuses values of a wrong type
        assert parsed.getKind() == document["kind"]
    misspelt = {"spec": {"containers": [{"name": "spark", "volumeMount": []}]}}
    pod = "io.fabric8.kubernetes.api.model.Pod"
    assert unknown_keys(jvm, misspelt, pod, "Pod") == ["Pod.spec.containers.0.volumeMount"]


def test_driver_pod_of_a_submission(tmp_path):
    """Cluster mode, as the head of spark-defaults.conf says; the driver is never run here."""
    with ApiServer() as server:
        flags = ["--master", f"k8s://{server.url}", "--conf", "spark.kubernetes.container.image=registry/mkdm:1"]
        flags += ["--conf", "spark.kubernetes.submission.waitAppCompletion=false"]
        command = [
            *submit_command("kubernetes", "cpu", *flags),
            "local:///opt/mkdm/jobs/score.py",
            "--model",
            "/models/s",
        ]
        done = submit(command, "kubernetes")
    assert done.returncode == 0, done.stderr[-6000:]
    (pod,) = server.made["pods"]
    assert pod["spec"]["serviceAccountName"] == "mkdm"
    container = checked(pod, "driver", "registry/mkdm:1")
    assert container["resources"]["limits"]["memory"] == f"{(8 + 2) * 1024}Mi", "heap and overhead of the shape"
    assert container["args"][0] == "driver"
    assert container["args"][-3:] == ["local:///opt/mkdm/jobs/score.py", "--model", "/models/s"]
    (conf,) = [kept["data"] for kept in server.made["configmaps"] if "spark.properties" in kept.get("data", {})]
    assert re.search(r"^spark\.executor\.cores=8$", conf["spark.properties"], re.MULTILINE)


@pytest.mark.slow
def test_executor_pods_of_a_driver_with_gpus(spark, tmp_path):
    """A driver outside of the cluster, which asks for executors until the stand-in has a pod."""
    with ApiServer() as server:
        flags = ["--master", f"k8s://{server.url}", "--deploy-mode", "client", *NO_WATCH]
        flags += ["--conf", "spark.kubernetes.container.image=registry/mkdm:1"]
        flags += ["--jars", spark.sparkContext.getConf().get("spark.jars")]
        ask = ("wait", f"{server.url}/made/pods")
        conf = said(tmp_path, "kubernetes", "gpu", *flags, ask=ask)["conf"]
    assert_taken(conf, "kubernetes", "gpu", flags)
    assert conf["spark.task.cpus"] == conf["spark.executor.cores"] == "8", "one task, so one model, per executor"
    assert conf["spark.task.resource.gpu.amount"] == "1"
    container = checked(server.made["pods"][0], "executor", "registry/mkdm:1")
    assert container["resources"]["limits"] == {"memory": f"{(8 + 12) * 1024}Mi", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["cpu"] == "8"
    assert server.made["pods"][0]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"


def checked(pod, role: str, image: str):
    """The Spark container of a pod that has all of its template."""
    template = yaml.safe_load((FOLDER / f"{role}.yaml").read_text())
    assert pod["metadata"]["labels"].items() >= template["metadata"]["labels"].items()
    assert pod["metadata"]["namespace"] == "mkdm"
    assert pod["spec"]["securityContext"] == template["spec"]["securityContext"]
    (wanted,) = template["spec"]["containers"]
    (container,) = [one for one in pod["spec"]["containers"] if one["name"] == wanted["name"]]
    assert container["image"] == image
    assert container["securityContext"] == wanted["securityContext"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.items() >= {mount["name"]: mount["mountPath"] for mount in wanted["volumeMounts"]}.items()
    local = [name for name in mounts if name.startswith("spark-local-dir-")]
    assert local == ["spark-local-dir-1"], "shuffles go to the template's volume, and Spark adds none"
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["SPARK_LOCAL_DIRS"] == "/var/data/spark-1"
    return container


def test_image_has_what_the_pods_name():
    """Its steps are not run: there is no image registry here."""
    recipe = (FOLDER / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"delta-spark_2\.13:(\S+)", recipe)[1] in re.search(r"^delta-spark==.*$", pinned, re.MULTILINE)[0]
    assert (
        f"WORKDIR {re.search(r'local://(/opt/mkdm)/jobs', (FOLDER / 'spark-defaults.conf').read_text())[1]}\n" in recipe
    )
    template = yaml.safe_load((FOLDER / "executor.yaml").read_text())
    assert f"\nUSER {template['spec']['securityContext']['runAsUser']}\n" in recipe
    script = properties(CLUSTER / "shapes" / "gpu.conf")["spark.executor.resource.gpu.discoveryScript"]
    *_, workdir = re.findall(r"^WORKDIR (.+)$", recipe, re.MULTILINE)
    assert workdir == "/opt/spark-work"
    assert f"COPY cluster/shapes/gpus.sh {script.removeprefix('./')}\n" in recipe
    assert subprocess.run(["test", "-x", str(CLUSTER / "shapes" / "gpus.sh")], check=False).returncode == 0
