# Jobs and metrics from the stack's settings file, with defaults.

locals {
  settings_path = coalesce(var.settings_file, "${path.module}/../stack.auto.tfvars.json")
  settings      = try(jsondecode(file(local.settings_path)), {})

  name          = [for name in [var.name, try(local.settings.name, null), "ddg-stats"] : name if name != null][0]
  ddg_site      = [for site in [var.ddg_site, try(local.settings.ddg_site, null), "datadoghq.com"] : site if site != null][0]
  metric_prefix = [for prefix in [var.metric_prefix, try(local.settings.metric_prefix, null), ""] : prefix if prefix != null][0]

  given_jobs    = try(merge(local.settings.jobs), {})
  given_metrics = try(merge(local.settings.metrics), {})
  sample_metrics = {
    "${local.metric_prefix}sample.stats"   = {}
    "${local.metric_prefix}processed.data" = { monitor = { kind = "anomaly", every_hours = 0.125 } }
  }

  metrics  = merge(local.given_metrics, { for name, metric in local.sample_metrics : name => metric if length(local.given_metrics) == 0 })
  counts   = [for name, metric in local.metrics : name if try(metric.type, null) == "count"]
  monitors = { for name, metric in local.metrics : name => metric.monitor if try(metric.monitor, null) != null }

  watched_jobs = [for name, job in local.given_jobs : name if try(job.silent_after_hours, null) != null]

  unknown = {
    for name, metric in local.metrics : name => {
      attributes = setsubtract(try(keys(metric), ["(no object)"]), ["type", "interval", "unit", "per_unit", "short_name", "description", "monitor"])
      monitor    = setsubtract(try(keys(metric.monitor), []), ["kind", "above", "below", "every_hours", "message"])
      units      = setsubtract(compact([try(metric.unit, null), try(metric.per_unit, null)]), local.units)
    }
  }

  problems = concat(
    fileexists(local.settings_path) && !can(keys(jsondecode(file(local.settings_path)))) ? ["the file must be a JSON object"] : [],
    [for name, job in local.given_jobs : "job ${name}: a job can have mapping and silent_after_hours" if length(setsubtract(try(keys(job), ["(no object)"]), ["mapping", "silent_after_hours"])) > 0],
    flatten([for name, metric in local.metrics : [for problem, found in {
      "unknown attribute: ${join(", ", local.unknown[name].attributes)}"                         = length(local.unknown[name].attributes) > 0
      "unknown attribute of its monitor: ${join(", ", local.unknown[name].monitor)}"             = length(local.unknown[name].monitor) > 0
      "unknown unit: ${join(", ", local.unknown[name].units)} (see units.tf: second, byte, row)" = length(local.unknown[name].units) > 0
      "type must be gauge or count"                                                              = !contains(["gauge", "count"], try(coalesce(metric.type), "gauge"))
    } : "${name}: ${problem}" if found]]),
    flatten([for name, monitor in local.monitors : [for problem, found in {
      "a monitor's kind must be threshold or anomaly"                                   = !try(contains(["threshold", "anomaly"], monitor.kind), false)
      "a threshold needs a number as above, as below, or as both"                       = try(monitor.kind == "threshold", false) && (!anytrue([for side in ["above", "below"] : can(monitor[side] + 0)]) || anytrue([for side in ["above", "below"] : try(monitor[side] != null, false) && !can(monitor[side] + 0)]))
      "an anomaly can't have above or below"                                            = try(monitor.kind == "anomaly", false) && anytrue([for side in ["above", "below"] : try(monitor[side] != null, false)])
      "every_hours must be a number over 0 and at most 84"                              = try(monitor.every_hours != null, false) && !try(monitor.every_hours > 0 && monitor.every_hours <= 84, false)
      "an anomaly needs a job that writes at least every hour: use a threshold instead" = try(monitor.kind == "anomaly" && monitor.every_hours > 1, false)
    } : "${name}: ${problem}" if found]]),
  )
}
