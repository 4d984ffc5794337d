from __future__ import annotations

from aiohttp import web


def values(seen: dict, name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key.lower() == name.lower()]


async def test_hop_by_hop_headers_end_at_the_proxy_in_both_directions(upstream, plane, raw, head_of):
    async def give(request):
        seen.extend(request.headers.items())
        return web.Response(
            text="x",
            headers={
                "Connection": "X-Down",
                "X-Down": "1",
                "Proxy-Authenticate": "no",
                "Keep-Alive": "timeout=5",
                "X-End": "1",
            },
        )

    seen: list = []
    app = web.Application()
    app.router.add_route("*", "/", give)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\n"
        b"Keep-Alive: 9\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eDp5\r\nProxy: http://evil\r\nTrailer: X\r\n"
        b"X-Kept: a\r\nX-Kept: b\r\n\r\n"
    )
    answer = (await head_of(reader)).lower()
    names = [name.lower() for name, _ in seen]
    for dropped in ("connection", "x-secret", "te", "keep-alive", "upgrade", "proxy-authorization", "proxy", "trailer"):
        assert dropped not in names, dropped
    assert [value for name, value in seen if name.lower() == "x-kept"] == ["a", "b"]
    assert [value for name, value in seen if name.lower() == "host"] == ["shop.example"]
    assert "x-end: 1" in answer
    for dropped in ("x-down", "proxy-authenticate", "keep-alive"):
        assert dropped not in answer, dropped


async def test_a_connection_header_cannot_take_away_host_or_length(upstream, plane, raw, head_of):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(
        b"POST /x HTTP/1.1\r\nHost: a.example\r\nConnection: Host, Content-Length, Authorization\r\n"
        b"Authorization: Bearer t\r\nContent-Length: 3\r\n\r\nabc"
    )
    await head_of(reader)
    body = (await reader.read(4096)).decode()
    assert '"body_bytes": 3' in body
    assert "a.example" in body
    assert "Bearer t" in body


async def test_a_client_cannot_claim_to_be_forwarded(upstream, plane, client, at):
    node = await plane(await upstream())
    claims = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "http",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
    }
    async with client.get(at(node), headers=claims) as response:
        seen = await response.json()
    assert values(seen, "X-Forwarded-For") == ["127.0.0.1"]
    assert values(seen, "X-Forwarded-Proto") == ["https"]
    assert values(seen, "X-Forwarded-Host") == [f"127.0.0.1:{node.port}"]
    assert values(seen, "X-Real-IP") == values(seen, "Forwarded") == []


async def test_a_trusted_proxy_is_believed_and_appended_to(upstream, plane, client, at):
    node = await plane(await upstream(), trusted_proxies=["127.0.0.0/8"])
    async with client.get(at(node), headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"}) as response:
        seen = await response.json()
    assert values(seen, "X-Forwarded-For") == ["6.6.6.6, 127.0.0.1"]
    assert values(seen, "X-Forwarded-Proto") == ["http"]


async def test_nothing_is_added_to_what_client_and_upstream_say(upstream, plane, raw, head_of):
    async def give(request):
        seen.extend(name.lower() for name in request.headers)
        response = web.StreamResponse(headers={"Content-Length": "1", "Server": "origin/9"})
        await response.prepare(request)
        await response.write(b"x")
        return response

    seen: list = []
    app = web.Application()
    app.router.add_route("*", "/", give)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
    answer = (await head_of(reader)).lower()
    assert set(seen) == {"host", "content-length", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
    assert "server: origin/9" in answer


async def test_several_set_cookie_headers_stay_several(upstream, plane, client, at):
    async def give(_request):
        response = web.Response()
        response.headers.add("Set-Cookie", "a=1; Path=/")
        response.headers.add("Set-Cookie", "b=2; HttpOnly")
        return response

    app = web.Application()
    app.router.add_get("/", give)
    node = await plane(await upstream(app))
    async with client.get(at(node)) as response:
        assert response.headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2; HttpOnly"]
