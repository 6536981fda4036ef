"""gunicorn as it is, but for a tenth of its patience with slow clients: `python -m tests.app.hasty`."""

from gunicorn.app.wsgiapp import run

from app.web import server

server.RECEIVE_TIMEOUT /= 10
server.SEND_TIMEOUT /= 30

if __name__ == "__main__":
    run()
