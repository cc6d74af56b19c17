# Run with: twistd --nodaemon --python gearmand.tac
from twisted.application.service import Application

from txgearman.server import Settings, make_service

application = Application("gearmand")
settings = Settings(listen=("tcp:4730:interface=127.0.0.1", "unix:gearmand.sock"), job_retries=3)
make_service(settings).setServiceParent(application)
