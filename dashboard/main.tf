# What the two sample metrics look like in Datadog: a dashboard and a monitor. A root of its own:
# the stack works without it, and it works with files from any stack.

locals {
  metrics = [for metric in ["sample.stats", "processed.data"] : "${var.metric_prefix}${metric}"]

  metric_widgets = [for metric in local.metrics : {
    title   = "${metric} by job"
    queries = ["avg:${metric}{$job} by {job}"]
  }]

  # CloudWatch's names as Datadog's AWS integration writes them.
  submitter = "functionname:${var.name}-metric-submit"
  queues    = { for queue in ["stats", "dead-letter", "rejected"] : queue => "queuename:${var.name}-${queue}" }

  health_widgets = [
    {
      title   = "Files submitted, refused, retried"
      queries = [for metric in ["submitted", "refused", "retried"] : "sum:datadogstats.${metric}{${local.submitter}}.as_count()"]
    },
    {
      title   = "Messages waiting, dead, rejected"
      queries = [for queue, tag in local.queues : "max:aws.sqs.approximate_number_of_messages_visible{${tag}}"]
    },
    {
      title   = "Oldest message in seconds"
      queries = [for queue, tag in local.queues : "max:aws.sqs.approximate_age_of_oldest_message{${tag}}"]
    },
  ]

  notes = {
    metrics = "Written by jobs as files, submitted by the stack **${var.name}**. A gauge shows the average of an interval: for a count that a job adds up, ask for `.rollup(sum)`."
    health  = "**Health of ${var.name}**, from CloudWatch through Datadog's AWS integration. Nothing here: let the integration collect SQS and custom metrics (namespace DatadogStats) in the stack's account and region; its numbers are some minutes late."
  }

  timeseries = { for group, widgets in { metrics = local.metric_widgets, health = local.health_widgets } : group => [for widget in widgets : {
    definition = {
      type  = "timeseries"
      title = widget.title
      requests = [{
        response_format = "timeseries"
        display_type    = "line"
        queries         = [for index, query in widget.queries : { data_source = "metrics", name = "query${index}", query = query }]
        formulas        = [for index, query in widget.queries : { formula = "query${index}" }]
      }]
    }
  }] }

  shown = var.health_widgets ? ["metrics", "health"] : ["metrics"]
}

resource "datadog_dashboard_json" "stats" {
  dashboard = jsonencode({
    title              = "${var.name}: metrics from files"
    layout_type        = "ordered"
    template_variables = [{ name = "job", prefix = "job", defaults = ["*"] }]

    widgets = flatten([for group in local.shown : concat(
      [{ definition = { type = "note", content = local.notes[group] } }],
      local.timeseries[group],
    )])
  })
}

resource "datadog_monitor" "processed_data" {
  name    = "${var.name}: ${local.metrics[1]} of {{job.name}} is unusual"
  type    = "query alert"
  query   = "avg(last_4h):anomalies(avg:${local.metrics[1]}{*} by {job}, 'agile', 3, direction='both', interval=60, alert_window='last_15m', count_default_zero='true') >= 1"
  message = trimspace("For 15 minutes ${local.metrics[1]} of {{job.name}} has been outside of what its past suggests. First look at the job itself, then at the dashboard ${datadog_dashboard_json.stats.url}. ${var.notify}")
  tags    = ["stack:${var.name}"]

  require_full_window = false # files come when they come

  monitor_thresholds {
    critical          = 1
    critical_recovery = 0
  }

  monitor_threshold_windows {
    trigger_window  = "last_15m"
    recovery_window = "last_15m"
  }
}
