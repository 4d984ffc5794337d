-- Headers that a Connection header names end at the proxy (RFC 9110 7.6.1); called only where one names any.
-- Without these, framing, routing or authorisation could be taken away by a name.
local kept = {
  ["host"] = true, ["content-length"] = true, ["content-type"] = true, ["authorization"] = true,
  ["cookie"] = true, ["set-cookie"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

local function each_name(headers, remove)
  local lines = headers["connection"]
  if lines == nil then return end
  for _, line in pairs(lines) do
    for name in string.gmatch(string.lower(line), "[^,%s]+") do
      if not kept[name] then remove(name) end
    end
  end
end

core.register_action("hop_up", { "http-req" }, function(txn)
  each_name(txn.http:req_get_headers(), function(name) txn.http:req_del_header(name) end)
end, 0)

core.register_action("hop_down", { "http-res" }, function(txn)
  each_name(txn.http:res_get_headers(), function(name) txn.http:res_del_header(name) end)
end, 0)
