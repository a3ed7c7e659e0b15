variable "ddg_api_key" {
  type        = string
  description = "Datadog API key. Left out, the provider takes DD_API_KEY from its environment."
  default     = null
  sensitive   = true
}

variable "ddg_app_key" {
  type        = string
  description = "Datadog application key of a user who may write dashboards and monitors. Left out, the provider takes DD_APP_KEY from its environment."
  default     = null
  sensitive   = true
}

variable "ddg_site" {
  type        = string
  description = "Datadog site that the keys belong to, such as datadoghq.eu: the one that the stack sends to. Left out, it is that of the settings file, else datadoghq.com."
  default     = null

  validation {
    condition     = var.ddg_site == null || try(contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], var.ddg_site), false) || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+(datadoghq\\.com|ddog-gov\\.com)$", var.ddg_site)) && !can(regex("^(api|app)\\.", var.ddg_site))
    error_message = "ddg_site is one of datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, ddog-gov.com, us2.ddog-gov.com or another host under datadoghq.com or ddog-gov.com: no https://, no api. or app. before it."
  }
}

variable "settings_file" {
  type        = string
  description = "The stack's settings file, as JSON: its `jobs` and `metrics` are read, and what the variables here leave out. Left out, it is ../stack.auto.tfvars.json, if that is there."
  default     = null

  validation {
    condition     = var.settings_file == null || try(fileexists(var.settings_file), false)
    error_message = "settings_file isn't there, as seen from where Terraform runs."
  }
}

variable "name" {
  type        = string
  description = "Name of the stack whose files are shown. Left out, it is that of the settings file, else ddg-stats."
  default     = null

  validation {
    condition     = var.name == null || can(regex("^[a-z0-9][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name is 3 to 24 characters: lower case letters, digits and hyphens, no hyphen at either end."
  }
}

variable "metric_prefix" {
  type        = string
  description = "What the names of the generator's two metrics begin with, such as `etl.` for etl.sample.stats, where `metrics` names no others. Left out, it is that of the settings file."
  default     = null

  validation {
    condition     = var.metric_prefix == null || can(regex("^([A-Za-z][A-Za-z0-9_.]*)?$", var.metric_prefix))
    error_message = "metric_prefix is empty, or letters, digits, _ and . with a letter first: etl."
  }
}

variable "notify" {
  type        = string
  description = "Whom the monitors tell, as in a Datadog message: @oncall@example.com, @slack-data. Empty: it only shows in Datadog."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(@\\S+( @\\S+)*)?$", var.notify))
    error_message = "notify is empty, or handles with a space between: @oncall@example.com @slack-data."
  }
}

variable "health_widgets" {
  type        = bool
  description = "Whether the dashboard shows the pipeline's own health too. Its numbers come from CloudWatch: Datadog's AWS integration must be there and collect SQS and custom metrics (DatadogStats)."
  default     = false
  nullable    = false
}

variable "describe_metrics" {
  type        = bool
  description = "Whether Datadog is told what `metrics` says of each: type, unit, per_unit, short_name, description. Turn it on once points of all of them have arrived: of a metric that it has never seen Datadog says 404."
  default     = false
  nullable    = false
}
