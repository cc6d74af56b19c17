"""Values of JSON instead of text, in the jobs of a client and of a worker."""

import json

from txgearman import blocking as gearman


class JsonEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return json.loads(decodable_string)


class JsonClient(gearman.GearmanClient):
    data_encoder = JsonEncoder


class JsonWorker(gearman.GearmanWorker):
    data_encoder = JsonEncoder


def total(_worker, job):
    return {"total": sum(job.data)}


def work():
    worker = JsonWorker(["localhost:4730"])
    worker.register_task("total", total)
    worker.work()


def main():
    client = JsonClient(["localhost:4730"])
    request = client.submit_job("total", [1, 2, 3], poll_timeout=10.0)
    print(request.result["total"])


if __name__ == "__main__":
    main()
