-- Who calls, and may they? Answered from memory; at a miss the agent is asked (`gate`, `reviews`).
-- Runs twice for requests that are routed by their body: before it is read, and after. Each has its
-- own memory, one for each worker thread. The names in capitals are set by what loads this.
local OURS, THEIRS = "x-beamlit-authorization", "authorization"
local time, match, find = os.time, string.match, string.find
local sub, gsub, lower = string.sub, string.gsub, string.lower

-- Memory by the header's value. Two generations: what is used lives on, the rest goes with the elder.
local young, elder, count = {}, {}, 0

local function keep(value, entry)
  if count >= REMEMBERED then young, elder, count = {}, young, 0 end
  young[value] = entry
  count = count + 1
end

local function entry_of(value)
  local entry = young[value]
  if not entry then
    entry = elder[value]
    if entry then
      elder[value] = nil
      keep(value, entry)
    end
  end
  return entry
end

local function forget(value) young[value], elder[value] = nil, nil end

local function fresh_entry() return { allowed = {}, denied = {}, asking = {}, size = 0, expires = 0 } end

local function refuse(handle, code, user)
  local headers = { [":status"] = code, ["content-type"] = "application/json" }
  local body
  if code == "401" then
    headers["www-authenticate"] = 'Bearer realm="beamlit"'
    body = UNAUTHENTICATED
  elseif code == "403" then
    body = FORBIDDEN_BEFORE .. (user or "") .. FORBIDDEN_AFTER
  else
    headers["retry-after"] = RETRY_AFTER
    body = UNAVAILABLE
  end
  -- Answers get headers of their route (a revision's name, a cookie) and are counted with its
  -- cluster: it leaves the route for none, and the log finds the path under the other name.
  local asked = handle:headers()
  asked:replace("x-envoy-original-path", asked:get(":path") or "")
  asked:replace(":path", "*")
  handle:clearRouteCache()
  handle:respond(headers, body)
end

-- What a caller wrote, fit for a header.
local function plain(text) return (gsub(sub(text, 1, 253), "[^!-~ ]", "?")) end

-- Asks the agent. Tokens pass a filter on their way that checks their signature.
-- Keys that were good before are not held up by a flood of guesses.
local function ask(handle, token, d, workspace, asked, known)
  local way = "/token"
  if sub(token, 1, #KEY_PREFIX) == KEY_PREFIX then way = known and "/known" or "/key" end
  local name = ""
  if d then workspace, name = match(d, "^([^/]+)/(.*)$") end
  local headers, body = handle:httpCall(REVIEWERS, {
    [":method"] = "POST", [":path"] = way, [":authority"] = "agent",
    ["x-beamlit-token"] = token, ["x-beamlit-workspace"] = plain(workspace or ""),
    ["x-beamlit-deployment"] = name, ["x-beamlit-asked"] = plain(asked),
  }, "", PATIENCE_MS)
  local answer = headers["x-beamlit-verdict"]
  if not answer then
    local code = headers[":status"]
    -- What the filter says. That it has no keys to check with is not the caller's fault.
    local told = (code == "401" or code == "403") and not find(body or "", "fetch", 1, true)
    answer = told and "unauthenticated" or "unavailable"
  end
  return answer, headers
end

-- By caller: questions of this second that are open, or were answered with no. Who asks for ever new
-- names must leave the agent to the others.
local questions, second = {}, 0

local function may_ask(user, now)
  if now ~= second then questions, second = {}, now end
  local count = (questions[user] or 0) + 1
  if count > QUESTIONS then return false end
  questions[user] = count
  return true
end

local function answered_well(user)
  if (questions[user] or 0) > 0 then questions[user] = questions[user] - 1 end
end

-- "allow", "deny", "unauthenticated" or "unavailable", and who it is. `d` is the deployment that the
-- route leads to; `asked` is what the caller asked for in the same words, whether that exists or not:
-- refusals are remembered by it, so that they take the same time for what exists and what does not.
local function verdict(handle, value, token, d, workspace, asked)
  -- No name is as long: all that are count as one, so that memory has an end.
  if #asked > LONGEST_ASKED then asked = "l " .. sub(workspace or "", 1, 64) end
  local entry, now, key = entry_of(value), time(), d or asked
  local at
  if entry and now < entry.expires then
    at = entry.allowed[key]
    if at and now - at < TTL then return "allow", entry.user end
    local no = entry.denied[asked]
    if no and no.d == d and now - no.at < REFUSED_TTL then return "deny", entry.user end
    -- One asks; who comes meanwhile goes by what was known.
    if at and now - at < STALE and now < (entry.asking[key] or 0) then return "allow", entry.user end
    if at then
      entry.asking[key] = now + MEANWHILE
    elseif not may_ask(entry.user, now) then
      return "unavailable", entry.user
    end
  end
  local answer, headers = ask(handle, token, d, workspace, asked, entry)
  now = time()
  if answer == "crowded" then return "unavailable" end
  if answer == "unavailable" then
    if at and now - at < STALE and now < entry.expires then
      entry.asking[key] = now + MEANWHILE
      return "allow", entry.user
    end
    return answer
  end
  if answer == "unauthenticated" then
    forget(value)
    return answer
  end
  entry = entry_of(value)
  if not entry or entry.size >= DECISIONS then
    local known = entry
    entry = fresh_entry()
    if known then young[value] = entry else keep(value, entry) end
  end
  entry.asking[key] = nil
  entry.size = entry.size + 1
  entry.user = headers["x-beamlit-user"] or ""
  entry.expires = tonumber(headers["x-beamlit-expires"]) or 0
  at = now - (tonumber(headers["x-beamlit-age"]) or 0)
  if answer == "allow" then
    answered_well(entry.user)
    entry.allowed[key], entry.denied[asked] = at, nil
  else
    entry.allowed[key], entry.denied[asked] = nil, { d = d, at = at }
  end
  return answer, entry.user
end

-- The workspace of a path that has the form of a model's, and what it asks for.
local function asked_by_path(path)
  local base, query = match(path, "^([^?]*)%??(.*)$")
  local workspace, model = match(base, "^/([^/]+)/models/([^/]*)")
  if workspace then
    local environment = match("&" .. query, "&environment=([^&]+)") or "production"
    return workspace, "p " .. workspace .. " " .. model .. " " .. environment
  end
  workspace = match(base, "^/([^/]+)/openai/v1/")
  if workspace then return workspace, "p " .. base end
end

-- The same of a host name: of two labels or more, and no address.
local function asked_by_host(authority)
  local host = lower(match(authority, "^([^:%[%]]+)") or "")
  if not find(host, "%.") or find(host, "^[%d%.]+$") then return end
  local front = host
  for i = 1, #SUFFIXES do
    local suffix = SUFFIXES[i]
    if sub(host, -#suffix) == suffix then
      front = sub(host, 1, -#suffix - 1)
      break
    end
  end
  return match(front, "([^%.]+)$") or front, "h " .. host
end

local function note(handle, user)
  if LOGGED and user then handle:streamInfo():dynamicMetadata():set("beamlit", "caller", user) end
end

local CODES = { deny = "403", unauthenticated = "401", unavailable = "503" }

-- Decides, and answers the caller if it is a no. Whether the request may go on.
local function pass(handle, value, token, d, workspace, asked)
  local answer, user = verdict(handle, value, token, d, workspace, asked)
  note(handle, user)
  if answer == "allow" then return true end
  refuse(handle, CODES[answer], user)
  return false
end

-- What the path alone leads to, as if the host's name did not exist; from here on the request does.
local function leave_host(handle, authority)
  handle:headers():replace(":authority", "-")
  handle:clearRouteCache()
  local about = handle:metadata()
  handle:headers():replace(":authority", authority)
  return about
end

-- By the route's metadata: what it leads to is what Envoy found, and no second reading of the request.
local function may_go_on(handle, about, value, token)
  local headers = handle:headers()
  local d, any, by_host = about:get("d"), about:get("any"), about:get("h")
  if any then return pass(handle, value, token, nil, nil, "") end
  if AFTER_BODY then
    local found = handle:streamInfo():dynamicMetadata():get("beamlit.openai") or {}
    local workspace = match(headers:get(":path"), "^/([^/]+)/")
    local model = tostring(found.model or "")
    if not find(model, "@", 1, true) then model = model .. "@production" end
    return pass(handle, value, token, d, workspace, "o " .. workspace .. " " .. model)
  end
  local authority, path = headers:get(":authority") or "", headers:get(":path") or ""
  local by_path_workspace, by_path = asked_by_path(path)
  local host_workspace, host = asked_by_host(authority)
  if by_host or host then
    local named = by_host and d or nil
    if not by_path then return pass(handle, value, token, named, host_workspace, host) end
    local answer, user = verdict(handle, value, token, named, host_workspace, host)
    if by_host and answer == "allow" then
      note(handle, user)
      return true
    end
    if by_host then
      -- A name that the caller may not call is as one that does not exist: the path decides.
      about = leave_host(handle, authority)
      d, any = about:get("d"), about:get("any")
      if about:get("public") then return true, OURS end
    end
    if answer ~= "allow" and answer ~= "deny" or by_host and any then
      note(handle, user)
      refuse(handle, CODES[answer], user)
      return false
    end
  end
  if by_path then return pass(handle, value, token, d, by_path_workspace, by_path) end
  if about:get("none") then return pass(handle, value, token, nil, nil, "") end
  -- Nothing that is known leads here: to be safe it is refused, by a workspace that cannot be.
  return pass(handle, value, token, d, "-", d or "-")
end

local function unknown(handle, headers, about, name, value)
  if about:get("public") then
    headers:remove(OURS)
    return
  end
  -- The body may name a deployment that is public: after it is read, this runs once more.
  if about:get("open") then return end
  local token = value and #value <= LONGEST and match(value, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w%-%._~%+/]+=*)$")
  if not token then
    local authority, path = headers:get(":authority") or "", headers:get(":path") or ""
    if about:get("h") and asked_by_path(path) and leave_host(handle, authority):get("public") then
      headers:remove(OURS)
      return
    end
    return refuse(handle, "401")
  end
  local later = about:get("later")
  local goes, taken = may_go_on(handle, about, value, token)
  if goes and not later then handle:headers():remove(taken or name) end
end

-- What is said of the route. handle:metadata() has the route looked up, but keeps what it found for as
-- long as the script is not suspended, so before `leave_host` only the other way may be taken.
local function route_of(handle)
  if AFTER_BODY then return handle:metadata() end
  return handle:route():metadata()
end

local function decide(handle)
  local headers, about = handle:headers(), route_of(handle)
  local name, value = OURS, headers:get(OURS)
  if not value then name, value = THEIRS, headers:get(THEIRS) end
  local d = about:get("d")
  local entry = d and value and young[value]
  if entry then
    local at, now = entry.allowed[d], time()
    if at and now - at < TTL and now < entry.expires and not about:get("public") then
      headers:remove(name)
      note(handle, entry.user)
      return
    end
  end
  unknown(handle, headers, about, name, value)
end

-- Envoy lets a request go on whose script fails: here it must not.
function envoy_on_request(handle)
  local fine, problem = pcall(decide, handle)
  if fine then return end
  handle:logErr("the gate failed: " .. tostring(problem))
  refuse(handle, "503")
end
