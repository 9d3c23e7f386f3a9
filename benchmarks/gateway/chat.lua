-- wrk's request and the line of JSON that benchmarks/gateway/wrk.py reads. Arguments: the key, the body.
function init(args)
    wrk.method = "POST"
    wrk.headers["content-type"] = "application/json"
    wrk.headers["authorization"] = "Bearer " .. args[1]
    wrk.body = args[2]
end

function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '{"calls":%d,"seconds":%.6f,"failed":%d,"p50_ms":%.4f,"p99_ms":%.4f}\n',
        summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
