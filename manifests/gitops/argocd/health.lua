-- Argo CD's health of the kinds of beamlit.com. By the conditions that kstatus reads too:
--   not looked at yet, or at an older generation   Progressing
--   Stalled                                        Degraded: a person has to act
--   a rollout that waits for a person              Suspended
--   Reconciling                                    Progressing
--   Ready                                          Healthy (an idle deployment is ready)
--   not Ready                                      Progressing: it may come by itself
local health = {status = "Progressing", message = "The operator has not looked at it yet."}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "It is being deleted."
  return health
end
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "The operator has not looked at its last change yet."
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local function is(kind)
  return found[kind] ~= nil and found[kind].status == "True"
end
if is("Stalled") then
  return {status = "Degraded", message = found["Stalled"].message}
end
local rollout = obj.status.rollout
if rollout ~= nil and rollout.phase == "Paused" then
  return {status = "Suspended", message = rollout.message}
end
if is("Reconciling") then
  return {status = "Progressing", message = found["Reconciling"].message}
end
if found["Ready"] ~= nil then
  health.message = found["Ready"].message
  if is("Ready") then
    health.status = "Healthy"
  end
end
return health
