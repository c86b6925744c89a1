"""The same answers as gate_app.py, from Django."""

import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import re_path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)


def tokens():
    for number in range(5):
        yield f"token {number}\n"
        time.sleep(0.02)


def answer(request):
    if request.path == "/stream":
        return StreamingHttpResponse(tokens(), content_type="text/plain")
    if request.path == "/large":
        return HttpResponse(b"x" * 3_000_000)
    if request.path == "/who":
        forwarded = [request.headers.get(name, "-") for name in ("X-Forwarded-For", "X-Forwarded-Proto")]
        return HttpResponse(" ".join([*forwarded, request.get_host()]))
    return HttpResponse(f"{request.method} {request.path} {len(request.read())}")


urlpatterns = [re_path("", answer)]
app = get_wsgi_application()
