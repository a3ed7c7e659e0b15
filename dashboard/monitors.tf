# A monitor for each threshold of a metric, and for an anomaly, by job.

locals {
  # The window is twice the time between two files, so that each evaluation sees at least one.
  minutes = { for metric, monitor in local.monitors : metric => max(15, ceil(120 * try(monitor.every_hours + 0, 1))) }
  windows = { for metric, minutes in local.minutes : metric => "last_${minutes % 60 == 0 ? "${minutes / 60}h" : "${minutes}m"}" }

  sides = flatten([for metric, monitor in local.monitors : [
    for side in ["above", "below", "unusual"] : {
      metric    = metric
      side      = side
      threshold = side == "unusual" ? 1 : tonumber(monitor[side])
      message   = try(monitor.message, null)
    } if side == "unusual" ? try(monitor.kind == "anomaly", false) : try(monitor.kind == "threshold" && can(monitor[side] + 0), false)
  ]])

  # max and min compare each value with the threshold; an average would hide a single one.
  aggregators = { above = "max", below = "min", unusual = "avg" }
  monitored = { for each in local.sides : "${each.metric} ${each.side}" => merge(each, {
    window = local.windows[each.metric]
    query  = contains(local.counts, each.metric) ? "sum:${each.metric}{*} by {job}.as_count()" : "${local.aggregators[each.side]}:${each.metric}{*} by {job}"
    # Datadog compares an alert window with at least five times as much.
    lookback = local.minutes[each.metric] <= 15 ? "last_4h" : "last_2d"
    step     = local.minutes[each.metric] <= 15 ? 60 : 300
  }) }
}

resource "datadog_monitor" "metric" {
  for_each = local.monitored

  name = "${local.name}: ${each.value.metric} of {{job.name}} is ${each.value.side}${each.value.side == "unusual" ? "" : " ${each.value.threshold}"}"
  type = "query alert"
  query = {
    above   = "max(${each.value.window}):${each.value.query} > ${each.value.threshold}"
    below   = "min(${each.value.window}):${each.value.query} < ${each.value.threshold}"
    unusual = "avg(${each.value.lookback}):anomalies(${each.value.query}, 'agile', 3, direction='both', interval=${each.value.step}, alert_window='${each.value.window}', count_default_zero='true') >= 1"
  }[each.value.side]
  message = trimspace("${each.value.message != null ? each.value.message : {
    above   = "${each.value.metric} of {{job.name}} is {{value}}, above ${each.value.threshold}. First look at the job's last run, then at the dashboard ${datadog_dashboard_json.stats.url}."
    below   = "${each.value.metric} of {{job.name}} is {{value}}, below ${each.value.threshold}. First look at the job's last run, then at the dashboard ${datadog_dashboard_json.stats.url}."
    unusual = "${each.value.metric} of {{job.name}} is outside of what its past suggests. First look at the job's last run, then at the dashboard ${datadog_dashboard_json.stats.url}."
  }[each.value.side]} ${var.notify}")
  tags = ["stack:${local.name}"]

  require_full_window = false # files don't arrive evenly

  monitor_thresholds {
    critical          = each.value.threshold
    critical_recovery = each.value.side == "unusual" ? 0 : null
  }

  dynamic "monitor_threshold_windows" {
    for_each = each.value.side == "unusual" ? [each.value.window] : []

    content {
      trigger_window  = monitor_threshold_windows.value
      recovery_window = monitor_threshold_windows.value
    }
  }
}

moved {
  from = datadog_monitor.processed_data
  to   = datadog_monitor.metric["processed.data unusual"]
}

# ---------------------------------------------------------------------------------------
# Descriptions of metrics
# ---------------------------------------------------------------------------------------

resource "datadog_metric_metadata" "metric" {
  for_each = { for name, metric in local.given_metrics : name => metric if var.describe_metrics }

  metric      = each.key
  type        = contains(local.counts, each.key) ? "count" : "gauge"
  unit        = try(each.value.unit, null)
  per_unit    = try(each.value.per_unit, null)
  short_name  = try(each.value.short_name, null)
  description = try(each.value.description, null)
}
