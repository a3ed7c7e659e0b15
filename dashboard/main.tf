# A Datadog dashboard, monitors and descriptions of your metrics. It is a root of its own: the stack works
# without it.

locals {
  metric_widgets = [for metric in keys(local.metrics) : {
    title   = "${metric} by job"
    display = contains(local.counts, metric) ? "bars" : "line"
    queries = [contains(local.counts, metric) ? "sum:${metric}{$job} by {job}.as_count()" : "avg:${metric}{$job} by {job}"]
  }]

  # CloudWatch's names as Datadog's AWS integration writes them.
  submitter = "functionname:${local.name}-metric-submit"
  queues    = { for queue in ["stats", "dead-letter", "rejected"] : queue => "queuename:${local.name}-${queue}" }

  health_widgets = concat([
    {
      title   = "Files submitted, refused, retried" # the stack's own numbers, without those of watched jobs
      display = "bars"
      queries = [for metric in ["submitted", "refused", "retried"] : "sum:datadogstats.${metric}{${local.submitter},!job:*}.as_count()"]
    },
    {
      title   = "Largest delay from upload to Datadog in milliseconds"
      display = "line"
      queries = ["max:datadogstats.delay_milliseconds.maximum{${local.submitter}}"]
    },
    {
      title   = "Messages waiting, dead, rejected"
      display = "line"
      queries = [for queue, tag in local.queues : "max:aws.sqs.approximate_number_of_messages_visible{${tag}}"]
    },
    {
      title   = "Oldest message in seconds"
      display = "line"
      queries = [for queue, tag in local.queues : "max:aws.sqs.approximate_age_of_oldest_message{${tag}}"]
    },
    ], length(local.watched_jobs) == 0 ? [] : [{
      title   = "Files of ${join(", ", local.watched_jobs)}"
      display = "bars"
      queries = ["sum:datadogstats.submitted{${local.submitter},job:*} by {job}.as_count()"]
  }])

  notes = {
    metrics = "Jobs write these metrics into files, and the stack **${local.name}** submits them. A gauge shows the average of an interval, a count the sum."
    health  = "**Health of ${local.name}**, from CloudWatch through Datadog's AWS integration. If nothing shows here, let the integration collect SQS and custom metrics (namespace DatadogStats) in the stack's account and region. Its numbers are some minutes late."
  }

  timeseries = { for group, widgets in { metrics = local.metric_widgets, health = local.health_widgets } : group => [for widget in widgets : {
    definition = {
      type  = "timeseries"
      title = widget.title
      requests = [{
        response_format = "timeseries"
        display_type    = widget.display
        queries         = [for index, query in widget.queries : { data_source = "metrics", name = "query${index}", query = query }]
        formulas        = [for index, query in widget.queries : { formula = "query${index}" }]
      }]
    }
  }] }

  shown = var.health_widgets ? ["metrics", "health"] : ["metrics"]
}

resource "datadog_dashboard_json" "stats" {
  dashboard = jsonencode({
    title              = "${local.name}: metrics from files"
    layout_type        = "ordered"
    template_variables = [{ name = "job", prefix = "job", defaults = ["*"] }]

    widgets = flatten([for group in local.shown : concat(
      [{ definition = { type = "note", content = local.notes[group] } }],
      local.timeseries[group],
    )])
  })

  lifecycle {
    precondition {
      condition     = length(local.problems) == 0
      error_message = "In ${local.settings_path}: ${join("; ", local.problems)}."
    }
  }
}
