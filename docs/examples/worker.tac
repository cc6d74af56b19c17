# Run with: twistd --nodaemon --python worker.tac
from twisted.application.service import Application
from twisted.internet import reactor

from txgearman import Worker

application = Application("reverser")
worker = Worker(reactor, "tcp:127.0.0.1:4730", client_id="reverser")
worker.register("reverse", lambda job: job.data[::-1])
worker.setServiceParent(application)
