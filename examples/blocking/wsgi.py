"""A WSGI application that lets a job compute its answer; for any WSGI server, with threads or processes."""

from urllib.parse import unquote

from txgearman import blocking as gearman

# Nothing is connected, and no thread started, before the first request: a server may fork in between.
client = gearman.GearmanClient(["localhost:4730"])


def application(environ, start_response):
    text = unquote(environ["QUERY_STRING"])
    status, answer = "200 OK", ""
    try:
        request = client.submit_job("delayed_reverse", text, poll_timeout=10.0)
    except gearman.errors.GearmanError as error:
        status, answer = "503 Service Unavailable", str(error)
    else:
        if request.state == gearman.JOB_COMPLETE:
            answer = request.result
        elif request.timed_out:
            status = "504 Gateway Timeout"
        else:
            status = "502 Bad Gateway"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [answer.encode()]
