-- For wrk: posts a body where asked to (BODY_BYTES), and prints what it measured as one line of JSON.

local bytes = tonumber(os.getenv("BODY_BYTES") or "0")
if bytes > 0 then
   wrk.method = "POST"
   wrk.body = string.rep("x", bytes)
   wrk.headers["Content-Type"] = "application/octet-stream"
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\nJSON {"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %d, "p99_us": %d,'
         .. ' "max_us": %d, "errors": %d}\n',
      summary.requests, summary.duration, summary.bytes, latency:percentile(50),
      latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
