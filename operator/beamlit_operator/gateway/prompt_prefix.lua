-- Names the beginning of the prompt in a header, by which the replica is chosen.
-- A pull scanner over the body's text: positions go in, positions come out; nil is malformed.
local HEADER = "x-beamlit-prompt-prefix"
local find, sub, byte = string.find, string.sub, string.byte

-- The end of the string whose opening quote stands at i.
local function string_end(s, i)
  while true do
    i = find(s, '["\\]', i + 1)
    if not i then return nil end
    if byte(s, i) == 34 then return i end
    i = i + 1
  end
end

-- The end of the value that begins at i.
local function value_end(s, i)
  local c = byte(s, i)
  if c == 34 then return string_end(s, i) end
  if c ~= 123 and c ~= 91 then
    local stop = find(s, "[%s,%]}]", i)
    return stop and stop - 1 or nil
  end
  local depth = 0
  while true do
    i = find(s, '["{}%[%]]', i)
    if not i then return nil end
    c = byte(s, i)
    if c == 34 then
      i = string_end(s, i)
      if not i then return nil end
    elseif c == 123 or c == 91 then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then return i end
    end
    i = i + 1
  end
end

-- Where the prompt's value begins: that of the first member `messages` or `prompt` of the object.
local function prompt_start(s)
  local i = find(s, "%S")
  if not i or byte(s, i) ~= 123 then return nil end
  while true do
    i = find(s, "[^%s,]", i + 1)
    if not i or byte(s, i) ~= 34 then return nil end
    local close = string_end(s, i)
    if not close then return nil end
    local name = sub(s, i + 1, close - 1)
    local _, colon = find(s, "^%s*:%s*", close + 1)
    if not colon then return nil end
    if name == "messages" or name == "prompt" then return colon + 1 end
    i = value_end(s, colon + 1)
    if not i then return nil end
  end
end

-- What counts of it: the strings that are values (roles, texts), in order; a prompt of tokens as it is.
local function text_of(s, start, length)
  local last = value_end(s, start)
  if not last then return nil end
  local parts, size, i = {}, 0, start
  while size < length * 4 do
    i = find(s, '"', i, true)
    if not i or i > last then break end
    local close = string_end(s, i)
    if not find(s, "^%s*:", close + 1) then
      local part = sub(s, i + 1, math.min(close - 1, i + length * 4))
      parts[#parts + 1] = part
      size = size + #part + 1
    end
    i = close + 1
  end
  if #parts == 0 then return sub(s, start, last) end
  return table.concat(parts, "\n")
end

-- Two polynomial hashes of the first characters (UTF-8); products stay below 2^53.
local function digest(text, length)
  local a, b, count = 7, 11, 0
  for i = 1, #text do
    local c = byte(text, i)
    if c < 128 or c > 191 then
      count = count + 1
      if count > length then break end
    end
    a = (a * 31 + c) % 2147483647
    b = (b * 131 + c) % 2147483629
  end
  return string.format("%08x%08x", a, b)
end

function envoy_on_request(handle)
  local headers, settings = handle:headers(), handle:filterContext()
  local length, largest = settings:get("length"), settings:get("largest")
  headers:remove(HEADER)
  -- Reading a body without a length could end in 413.
  local size = tonumber(headers:get("content-length") or "")
  if not size or size == 0 or size > largest then return end
  local body = handle:body()
  if not body then return end
  local text = body:getBytes(0, body:length())
  local start = prompt_start(text)
  local found = start and text_of(text, start, length)
  -- What was taken from the handle before the body is of no use after it.
  if found and found ~= "" then handle:headers():add(HEADER, digest(found, length)) end
end
